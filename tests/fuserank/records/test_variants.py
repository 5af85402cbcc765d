"""Variants become one product that any of them finds, and no row is lost."""

from decimal import Decimal

import pyarrow as pa

from fuserank.records.products import STAGED
from fuserank.records.variants import group_variants, known_ids


def staged(*rows: dict) -> pa.Table:
    full = [{"source": "p.csv", "position": place, **row} for place, row in enumerate(rows)]
    return pa.Table.from_pylist(full, schema=STAGED).sort_by("product_id")


def test_one_product_for_all_variants() -> None:
    table, merged = group_variants(
        staged(
            {"product_id": "M1-L", "parent_id": "M1", "title": "Hoodie L", "price": Decimal(52), "in_stock": True,
             "attributes": [("size", "L"), ("color", "Black")], "image_paths": ["l.jpg"]},
            {"product_id": "M1-S", "parent_id": "M1", "price": Decimal(49), "in_stock": False, "description": "Warm.",
             "attributes": [("size", "S"), ("color", "Black")], "image_paths": ["s.jpg"]},
            {"product_id": "M1", "title": "Hoodie", "price": Decimal(50), "in_stock": False,
             "attributes": [("material", "Wool")], "image_paths": ["main.jpg", "s.jpg"]},
            {"product_id": "other", "title": "Lamp"},
        )
    )  # fmt: skip
    assert (table["product_id"].to_pylist(), merged) == (["M1", "other"], 2)
    hoodie = table.to_pylist()[0]
    assert (hoodie["title"], hoodie["description"], hoodie["in_stock"]) == ("Hoodie", "Warm.", True)
    assert (hoodie["price"], hoodie["price_max"]) == (Decimal("49.00"), Decimal("52.00"))
    assert hoodie["attributes"] == [("material", "Wool"), ("size", "L"), ("color", "Black"), ("size", "S")]
    assert hoodie["image_paths"] == ["main.jpg", "s.jpg", "l.jpg"]
    assert hoodie["variant_ids"] == ["M1-L", "M1-S"]
    assert hoodie["position"] == 2


def test_variants_without_a_parent_row() -> None:
    table, merged = group_variants(
        staged({"product_id": "a", "parent_id": "p", "title": "A"}, {"product_id": "b", "parent_id": "p", "title": "B"})
    )
    (product,) = table.to_pylist()
    assert (product["product_id"], product["title"], product["variant_ids"], merged) == ("p", "A", ["a", "b"], 1)
    assert product["price_max"] is None


def test_nothing_to_group() -> None:
    table = staged({"product_id": "a"}, {"product_id": "b"})
    found, merged = group_variants(table)
    assert (found.to_pylist(), merged) == (table.to_pylist(), 0)


def test_chains_and_currencies() -> None:
    table, merged = group_variants(
        staged(
            {"product_id": "a", "price": Decimal(10), "currency": "EUR"},
            {"product_id": "b", "parent_id": "a", "price": Decimal(1000), "currency": "JPY"},
            {"product_id": "c", "parent_id": "b", "price": Decimal(12), "currency": "EUR"},
            {"product_id": "x", "parent_id": "y"},
            {"product_id": "y", "parent_id": "x"},
        )
    )
    assert merged == 2  # a circle of parents stays apart
    assert table["product_id"].to_pylist() == ["a", "x", "y"]
    chain = table.to_pylist()[0]
    assert (chain["product_id"], chain["variant_ids"]) == ("a", ["b", "c"])
    assert (chain["price"], chain["price_max"], chain["currency"]) == (Decimal(10), Decimal(12), "EUR")
    assert known_ids(table)["c"] == "a"
