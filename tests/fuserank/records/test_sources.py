"""Every format × packing gives the same rows; files and columns that are not there are named with their remedy."""

import csv
import gzip
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import ConfigError, InputError
from fuserank.records.mapping import ColumnMap, read_rows
from fuserank.records.quarantine import Quarantine
from fuserank.records.readers import Layout
from fuserank.records.sources import open_tables

ROWS = [
    {"id": "1", "name": 'Blue, "quoted" shirt', "cost": "9.50"},
    {"id": "2", "name": "Schuh – größe 42\nsecond line", "cost": ""},
    {"id": "3", "name": "红色连衣裙", "cost": "12"},
]


def encode(kind: str, rows: list[dict] = ROWS) -> bytes:
    if kind in ("csv", "tsv"):
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()
    if kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if kind == "jsonl":
        return "\n".join(json.dumps(row) for row in rows).encode()
    return json.dumps(rows, indent=1).encode()


def read(root: Path, *patterns: str) -> list[tuple[str, int, dict | None]]:
    return [(r.source, r.position, r.values) for file in open_tables(root, patterns) for r in file.rows]


@pytest.mark.parametrize("packing", ["plain", "gz", "zip", "gz in zip"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_formats(tmp_path: Path, kind: str, packing: str) -> None:
    data, name = encode(kind), f"items.{kind}"
    if packing.startswith("gz"):
        data, name = gzip.compress(data), f"{name}.gz"
    if packing.endswith("zip"):
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.writestr("readme.txt", "not a table")
            archive.writestr(name, data)
        file, source = "all.zip", f"all.zip/{name}"
    else:
        (tmp_path / name).write_bytes(data)
        file = source = name
    assert read(tmp_path, file) == [(source, i, row) for i, row in enumerate(ROWS)]


def test_many_files_keep_their_positions(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_bytes(encode("csv"))
    found = read(tmp_path, "*.csv", "a.csv")
    assert [(source, position) for source, position, _ in found] == [
        (n, i) for n in ("a.csv", "b.csv") for i in range(3)
    ]


def test_bad_rows_stay_in_count(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('id,name\n1,x\n2\n\n3,y,z\n4,"w"\n')
    (tmp_path / "p.jsonl").write_text('{"id": 1}\n{"id": \n[1]\n{"id": 4}\n')
    found = [(r.source, r.position, r.problem) for f in open_tables(tmp_path, ["p.csv", "p.jsonl"]) for r in f.rows]
    assert found == [
        ("p.csv", 0, ""),
        ("p.csv", 1, "wrong number of columns"),
        ("p.csv", 2, "wrong number of columns"),
        ("p.csv", 3, ""),
        ("p.jsonl", 0, ""),
        ("p.jsonl", 1, "malformed line"),
        ("p.jsonl", 2, "not an object"),
        ("p.jsonl", 3, ""),
    ]


@given(st.binary(max_size=400), st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "zip"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str) -> None:
    """Whatever the file holds: rows in order, or an InputError; nothing else."""
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / f"x.{kind}").write_bytes(data)
    try:
        found = read(root, f"x.{kind}")
    except InputError:
        return
    assert [position for _, position, _ in found] == list(range(len(found)))


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"records\.root"):
        read(tmp_path / "nowhere", "x.csv")
    (tmp_path / "items.csv").write_bytes(encode("csv"))
    with pytest.raises(InputError, match=r"records\.root.*items\.csv"):
        read(tmp_path, "products.csv")
    with pytest.raises(InputError):
        read(tmp_path / "sub", "../items.csv")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_missing_column_names_the_nearest(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"items.{kind}").write_bytes(encode(kind))
    columns = ColumnMap(("product_id", "title"), {"title": "nmae"}, {})
    with pytest.raises(InputError, match=r"no column 'nmae'.*Nearest columns: name"):
        list(read_rows(tmp_path, [f"items.{kind}"], columns, Quarantine("products")))


def test_sparse_json_columns_are_not_missing(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 1}\n{"id": 2, "colour": "red"}\n')
    columns = ColumnMap(("product_id", "attributes"), {"product_id": "id", "attributes.colour": "colour"}, {})
    found = [mapped for _, mapped, _ in read_rows(tmp_path, ["x.jsonl"], columns, Quarantine("products"))]
    assert found[1] == {"product_id": 2, "attributes": {"colour": "red"}}


def test_map_refuses_unknown_fields_and_labels() -> None:
    with pytest.raises(ConfigError, match="Did you mean `title`"):
        ColumnMap(("product_id", "title"), {"titel": "name"}, {})
    with pytest.raises(ConfigError, match="label"):
        ColumnMap(("product_id", "title"), {"title": "kind"}, {}, labels=("kind",))
    with pytest.raises(ConfigError):
        ColumnMap(("product_id",), {"attributes.colour": "c"}, {})


def test_constants_and_own_names() -> None:
    columns = ColumnMap(
        ("product_id", "title", "currency"), {"product_id": "sku"}, {"currency": "EUR"}, labels=("title",)
    )
    mapped = columns.apply({"sku": "a", "title": "a label, not a title", "currency": "USD", "other": 1})
    assert mapped == {"product_id": "a", "currency": "EUR"}


def test_attribute_patterns() -> None:
    columns = ColumnMap(
        ("product_id", "attributes"),
        {"product_id": "id", "attributes.colour": "c"},
        {},
        labels=("attr_t_secret",),
        patterns=("attr_t_*", "attr_n_*", "*_spec"),
    )
    row = {"id": 1, "c": "red", "attr_t_size": "L", "attr_n_size": 7, "attr_n_w": 2.5, "attr_t_": "no name"}
    row |= {"attr_t_secret": "a label", "attr_t_none": None, "weight_spec": "9 kg", "other": 1}
    assert columns.apply(row)["attributes"] == {"size": "L", "w": 2.5, "weight": "9 kg", "colour": "red"}
    for wrong in ("attr", "a*b*"):
        with pytest.raises(ConfigError, match="one star"):
            ColumnMap(("product_id", "attributes"), {}, {}, patterns=(wrong,))
    with pytest.raises(ConfigError):
        ColumnMap(("query_id",), {}, {}, patterns=("a*",))


def test_scale() -> None:
    columns = ColumnMap(("price", "rating"), {}, {}, scale={"price": 0.01, "rating": 0.5})
    assert columns.scaled("price", Decimal("13494")) == Decimal("134.94")
    assert columns.scaled("price", Decimal("0.50")) == Decimal("0.00")
    assert columns.scaled("price", None) is None
    assert columns.scaled("rating", 9.0) == 4.5
    assert ColumnMap(("price",), {}, {}).scaled("price", Decimal("5")) == Decimal("5")
    huge = ColumnMap(("price",), {}, {}, scale={"price": 1e20})
    with pytest.raises(ValueError, match="too large"):
        huge.scaled("price", Decimal(10) ** 15)
    with pytest.raises(ConfigError, match="Did you mean `price`"):
        ColumnMap(("price", "title"), {}, {}, scale={"prize": 0.01})
    with pytest.raises(ConfigError, match="number field"):
        ColumnMap(("title",), {}, {}, scale={"title": 2.0})


def test_atomic_files(tmp_path: Path) -> None:
    (tmp_path / "x.item").write_text('item_id:token\ttitle:token_seq\tyear:float\n7\tA "Big" Day\t1999\n8\tshort\n')
    rows = [row for file in open_tables(tmp_path, ["x.item"]) for row in file.rows]
    assert rows[0].values == {"item_id": "7", "title": ["A", '"Big"', "Day"], "year": "1999"}
    assert (rows[1].position, rows[1].values, rows[1].problem) == (1, None, "wrong number of columns")
    (tmp_path / "y.item").write_text("a:token\ta:float\n")
    with pytest.raises(InputError, match="more than once"):
        list(open_tables(tmp_path, ["y.item"]))


def test_sequences(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("u1 a b\n\nu2\nu3 a\n")
    rows = [row for file in open_tables(tmp_path, ["s.txt"], layout=Layout("sequences")) for row in file.rows]
    found = [(row.position, row.values and tuple(row.values.values()), row.problem) for row in rows]
    assert found == [
        (0, ("u1", "a", 0), ""),
        (1, ("u1", "b", 1), ""),
        (2, None, "no items"),
        (3, ("u3", "a", 0), ""),
    ]
    with pytest.raises(InputError, match="unknown table format"):
        list(open_tables(tmp_path, ["s.txt"]))


def test_objects_and_nested_columns(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text('{"a": {"size": {"eu": 42}, "tags": [1, 2]}, "b": 5}')
    rows = [row.values for file in open_tables(tmp_path, ["o.json"], layout=Layout("object")) for row in file.rows]
    assert rows[0] is not None
    assert rows[0]["key"] == "a"
    assert rows[0]["value.size.eu"] == 42
    assert rows[0]["value.tags"] == [1, 2]
    assert rows[1] == {"key": "b", "value": 5}
    columns = ColumnMap(
        ("product_id", "attributes"), {"product_id": "key"}, {}, patterns=("value.size.*",), layout=Layout("object")
    )
    mapped = [values for _, values, _ in read_rows(tmp_path, ["o.json"], columns, Quarantine("products"))]
    assert mapped == [{"product_id": "a", "attributes": {"eu": 42}}, {"product_id": "b"}]
    (tmp_path / "n.jsonl").write_text('{"a.b": "own", "a": {"b": "nested", "c": 1}}')
    (values,) = [row.values for file in open_tables(tmp_path, ["n.jsonl"]) for row in file.rows]
    assert values == {"a.b": "own", "a": {"b": "nested", "c": 1}, "a.c": 1}
    (tmp_path / "l.json").write_text("[1]")
    with pytest.raises(InputError, match="no JSON object"):
        [row for file in open_tables(tmp_path, ["l.json"], layout=Layout("object")) for row in file.rows]


def test_row_numbers_stand_for_ids(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\none\ntwo\n")
    columns = ColumnMap(("product_id", "title"), {"product_id": "@row", "title": "text"}, {})
    mapped = [values for _, values, _ in read_rows(tmp_path, ["t.csv"], columns, Quarantine("products"))]
    assert mapped == [{"product_id": "t.csv:0", "title": "one"}, {"product_id": "t.csv:1", "title": "two"}]
