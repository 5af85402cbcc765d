"""Product rows: what is set aside, what stays, and that nothing is lost."""

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import EmptyCatalogueError
from fuserank.records.mapping import ColumnMap
from fuserank.records.products import FIELDS, STAGED, read_products
from fuserank.records.quarantine import Quarantine

COLUMNS = ColumnMap(
    FIELDS,
    {"product_id": "sku", "title": ["make", "name"], "attributes.colour": "tint", "images": ["front", "back"]},
    {"currency": "EUR", "attributes.origin": "here"},
    labels=("kind",),
)


def read(root: Path, rows: list, aside: Quarantine, columns: ColumnMap = COLUMNS):
    blank = dict.fromkeys(columns.required)
    (root / "p.json").write_text(json.dumps([{**blank, **row} if isinstance(row, dict) else row for row in rows]))
    return read_products(root, ["p.json"], columns, aside, "title", lambda key: key.upper())


def test_fields(tmp_path: Path) -> None:
    aside = Quarantine("products")
    row = {
        "sku": 7, "make": "Acme", "name": "Mug", "tint": "blue", "front": "f.png", "back": "b.png", "kind": "Cups",
        "price": "$1,299.00", "category": "Home|Kitchen", "in_stock": "yes", "rating": "4.5", "review_count": 3.0,
        "updated_at": "2024-05-01", "audio": "a.wav", "brand": "", "description": "<i>Big</i>",
    }  # fmt: skip
    table = read(tmp_path, [row, {"sku": "10"}], aside)
    assert table.schema.equals(STAGED)
    assert table["product_id"].to_pylist() == ["10", "7"]  # sorted as text
    empty, mug = table.to_pylist()
    assert mug == {
        "product_id": "7", "parent_id": None, "variant_ids": None, "price_max": None,
        "title": "Acme Mug", "description": "Big", "price": Decimal("1299.00"),
        "currency": "EUR", "brand": None, "category": ["Home", "Kitchen"],
        "attributes": [("colour", "blue"), ("origin", "here")], "labels": [("kind", "Cups")], "in_stock": True,
        "rating": 4.5, "review_count": 3, "updated_at": datetime(2024, 5, 1), "split": "ACME MUG",
        "image_paths": ["f.png", "b.png"], "audio_path": "a.wav", "source": "p.json", "position": 0,
    }  # fmt: skip
    assert empty["split"] == "10"  # no title: the id decides
    assert empty["price"] is None
    assert len(aside) == 0


def test_what_is_set_aside(tmp_path: Path) -> None:
    aside = Quarantine("products")
    rows = [{"sku": "a"}, {"sku": ""}, {"sku": "a"}, {"sku": "b", "price": "free", "rating": "good"}, 5]
    table = read(tmp_path, rows, aside)
    assert table["product_id"].to_pylist() == ["a", "b"]
    assert [(e["position"], e["part"], e["reason"]) for e in aside.to_table().to_pylist()] == [
        (1, "row", "missing product_id"),
        (2, "row", "duplicate product_id"),
        (3, "price", "bad price"),
        (3, "rating", "bad rating"),
        (4, "row", "not an object"),
    ]
    aside.check(table.num_rows, 1.0)


def test_empty_catalogue(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("sku,name\n")
    with pytest.raises(EmptyCatalogueError, match="no usable product"):
        read_products(tmp_path, ["p.csv"], ColumnMap(FIELDS, {"product_id": "sku"}, {}), Quarantine("products"))


cell = st.one_of(
    st.none(), st.text(max_size=8), st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(st.text())
)
names = st.sampled_from([*FIELDS, "sku", "make", "name", "tint", "front", "kind"])


@given(st.lists(st.one_of(st.dictionaries(names, cell, max_size=6), st.integers()), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_every_row_goes_out_or_aside(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    root = tmp_path_factory.getbasetemp() / "rows"
    root.mkdir(exist_ok=True)
    aside = Quarantine("products")
    try:
        out = read(root, rows, aside).num_rows
    except EmptyCatalogueError:
        out = 0
    assert aside.rows_in == len(rows) == out + aside.rows
