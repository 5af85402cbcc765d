"""Files as strangers' shops export them: encodings, delimiters, stray quotes, damaged cells, others' leftovers."""

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuserank.errors import ConfigError, InputError
from fuserank.records.events import FIELDS as EVENT_FIELDS
from fuserank.records.events import read_events
from fuserank.records.mapping import ColumnMap
from fuserank.records.products import FIELDS, read_products
from fuserank.records.quarantine import Quarantine
from fuserank.records.readers import Layout
from fuserank.records.sources import open_tables


def read(root: Path, *patterns: str, **options: object) -> tuple[list[dict], dict[str, int]]:
    """Products and what was set aside; every row is in one of the two."""
    aside = Quarantine("products")
    columns = ColumnMap(FIELDS, options.pop("map", {}), {}, **options)  # type: ignore[arg-type]
    table = read_products(root, list(patterns), columns, aside)
    aside.check(table.num_rows, 1.0)
    return table.to_pylist(), aside.counts()


def ids(rows: list[dict]) -> list[str]:
    return [row["product_id"] for row in rows]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_stray_quote_spoils_its_own_line_only(tmp_path: Path, suffix: str) -> None:
    mark = "," if suffix == "csv" else "\t"
    lines = [f"product_id{mark}title", *(f"{n}{mark}Mug {n}" for n in range(2000))]
    lines[4], lines[901], lines[2000] = f'3{mark}"Mug 3', f'900{mark}"Mug 900', f'1999{mark}"Mug 1999'
    (tmp_path / f"p.{suffix}").write_text("\n".join(lines) + "\n")
    rows, aside = read(tmp_path, f"p.{suffix}")
    assert (len(rows), aside) == (2000, {})
    titles = {row["product_id"]: row["title"] for row in rows}
    assert (titles["3"], titles["1999"]) == ('"Mug 3', '"Mug 1999')


def test_quoted_line_breaks_and_quotes(tmp_path: Path) -> None:
    long = "line\n" * 40_000  # 200 KB in one cell
    (tmp_path / "p.csv").write_text(
        f'product_id,title,description\n1,"a ""b"", c","{long}"\n2,19" rack,\n3,"x\n\ny",\n'
    )
    rows, aside = read(tmp_path, "p.csv")
    assert (ids(rows), aside) == (["1", "2", "3"], {})
    assert [row["title"] for row in rows] == ['a "b", c', '19" rack', "x y"]
    assert rows[0]["description"].count("line") == 40_000


def test_a_quote_that_cannot_be_understood_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('product_id,title\n1,"a"b","c\n2,fine\n')
    rows, aside = read(tmp_path, "p.csv")
    assert ids(rows) == ["2"]
    assert aside == {"row: malformed line": 1}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "utf-8"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "product_id;title\né1;Café\nè1;Wärme\n"
    (tmp_path / "p.csv").write_bytes(text.encode(encoding))
    rows, aside = read(tmp_path, "p.csv")
    assert (ids(rows), [row["title"] for row in rows], aside) == (["è1", "é1"], ["Wärme", "Café"], {})
    (tmp_path / "p.jsonl").write_bytes(
        json.dumps({"product_id": "é", "title": "ü"}, ensure_ascii=False).encode(encoding)
    )
    assert ids(read(tmp_path, "p.jsonl")[0]) == ["é"]


def test_one_bad_byte_leaves_the_rest_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes("product_id,title\n1,Grün ".encode() + b"caf\xe9\n")
    (tmp_path / "p.json").write_bytes('[{"product_id": "2", "title": "靴 '.encode() + b'caf\xe9"}]')
    assert [row["title"] for row in read(tmp_path, "p.*")[0]] == ["Grün café", "靴 café"]


def test_an_encoding_and_a_delimiter_by_config(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes("product_id^title\n1^靴\n".encode("shift_jis"))
    rows, _ = read(tmp_path, "p.csv", layout=Layout(encoding="shift_jis", delimiter="^"))
    assert rows[0]["title"] == "靴"
    (tmp_path / "q.csv").write_bytes("product_id,title\n1,靴".encode("shift_jis") + b"\xff\n")
    assert read(tmp_path, "q.csv", layout=Layout(encoding="shift_jis"))[0][0]["title"] == "靴\ufffd"
    with pytest.raises(InputError, match="unknown encoding"):
        read(tmp_path, "p.csv", layout=Layout(encoding="klingon"))


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(tmp_path: Path, mark: str) -> None:
    (tmp_path / "p.csv").write_text(f'product_id{mark}title{mark}{mark}"x,;"\n1{mark}Mug{mark}{mark}\n')
    assert read(tmp_path, "p.csv")[0][0]["title"] == "Mug"
    (tmp_path / "s.csv").write_text(f"sep={mark}\nproduct_id{mark}title\n1{mark}Mug\n")
    assert read(tmp_path, "s.csv")[0][0]["title"] == "Mug"


def test_damaged_files_say_which(tmp_path: Path) -> None:
    packed = bytearray(
        gzip.compress(("product_id,title\n" + "".join(f"{n},Mug {n * n}\n" for n in range(5000))).encode())
    )
    packed[2000:2010] = bytes(10)
    (tmp_path / "p.csv.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"p\.csv\.gz"):
        read(tmp_path, "p.csv.gz")
    (tmp_path / "p.json").write_text('[{"product_id": ' + "9" * 5000 + "}]")
    with pytest.raises(InputError, match=r"p\.json is not valid"):
        read(tmp_path, "p.json")


def test_damaged_cells_spoil_their_rows_only(tmp_path: Path) -> None:
    names = pa.array([b"fine", b"\xff\xfe\xff", b"also"]).cast(pa.binary())
    broken = pa.StringArray.from_buffers(3, *names.buffers()[1:])
    pq.write_table(pa.table({"product_id": ["1", "2", "3"], "title": broken}), tmp_path / "p.parquet")
    rows, aside = read(tmp_path, "p.parquet")
    assert (ids(rows), aside) == (["1", "3"], {"row: unreadable row": 1})
    (tmp_path / "p.jsonl").write_text('[1, 2]\n{"product_id": "a"}\n{"product_id": "b"\n')
    rows, aside = read(tmp_path, "p.jsonl")
    assert (ids(rows), aside) == (["a"], {"row: malformed line": 1, "row: not an object": 1})
    (tmp_path / "s.jsonl").write_text('{"product_id": 1, "attributes": {"\\ud800": "red", "size": "S"}}')
    assert read(tmp_path, "s.jsonl")[0][0]["attributes"] == [("?", "red"), ("size", "S")]


def test_structs_in_parquet(tmp_path: Path) -> None:
    rows = [{"product_id": "1", "image": {"bytes": b"picture", "path": "a.png"}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    for file in open_tables(tmp_path, ["p.parquet"]):
        assert file.columns == ["product_id", "image", "image.bytes", "image.path"]
        assert [row.values and row.values["image.bytes"] for row in file.rows] == [b"picture"]
    found, _ = read(tmp_path, "p.parquet", map={"images": "image.path"})
    assert found[0]["image_paths"] == ["a.png"]


def test_what_other_systems_leave_behind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("products.csv", "product_id,title\n1,Mug\n")
        archive.writestr("__MACOSX/._products.csv", b"\x00\x05\x16\x07")
    assert ids(read(tmp_path, "p.zip", map={"title": "title"})[0]) == ["1"]
    (tmp_path / "a.csv").write_text("product_id,title\n2,Vase\n")
    (tmp_path / "._a.csv").write_bytes(b"\x00\x05")
    (tmp_path / "empty.csv").write_bytes(b"")
    assert ids(read(tmp_path, "*.csv", map={"title": "title"})[0]) == ["2"]
    (tmp_path / "f1.jsonl").write_text('{"product_id": 1, "sale": 5}')
    (tmp_path / "f2.jsonl").write_text('{"product_id": 2}')
    assert ids(read(tmp_path, "f*.jsonl", map={"price": "sale"})[0]) == ["1", "2"]
    with pytest.raises(InputError, match="sole"):
        read(tmp_path, "f*.jsonl", map={"price": "sole"})


def test_a_shops_own_words(tmp_path: Path) -> None:
    stock = ["12", "in stock", "out_of_stock", "https://schema.org/InStock", "SoldOut", "0", "perhaps"]
    (tmp_path / "p.csv").write_text("product_id,in_stock\n" + "".join(f"{n},{word}\n" for n, word in enumerate(stock)))
    rows, aside = read(tmp_path, "p.csv")
    assert [row["in_stock"] for row in rows] == [True, True, False, True, False, False, None]
    assert aside == {"in_stock: bad in_stock": 1}
    events = [("transaction", "12,50", 20240102), ("View", "$3.10", "20240103"), ("view", "", 1704067200)]
    (tmp_path / "e.csv").write_text(
        "type,value,timestamp,product_id\n" + "".join(f'{t},"{v}",{s},1\n' for t, v, s in events)
    )
    columns = ColumnMap(EVENT_FIELDS, {}, {}, key="records.events", values={"type": {"transaction": "purchase"}})
    table = read_events(tmp_path, ["e.csv"], columns, Quarantine("events"), {"1": "1"})
    found = [(e["type"], e["value"], e["timestamp"].date().isoformat()) for e in table.to_pylist()]
    assert found == [("view", None, "2024-01-01"), ("purchase", 12.5, "2024-01-02"), ("view", 3.1, "2024-01-03")]
    with pytest.raises(ConfigError, match="values"):
        ColumnMap(EVENT_FIELDS, {}, {}, values={"tipe": {}})


def test_attributes_in_any_shape(tmp_path: Path) -> None:
    cells = [
        '{"size": "S"}',
        [{"name": "size", "value": "S"}],
        [{"key": "size", "value": "S"}],
        {"size": "S"},
        "red",
        5,
    ]
    lines = [json.dumps({"product_id": str(n), "attributes": cell}) for n, cell in enumerate(cells)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    rows, aside = read(tmp_path, "p.jsonl")
    assert [row["attributes"] for row in rows] == [[("size", "S")]] * 4 + [[], []]
    assert aside == {"attributes: bad attributes": 2}


def test_a_price_too_large_in_its_unit(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("product_id,price\n1,1000000000000000\n2,1.299\n")
    rows, aside = read(tmp_path, "p.csv", scale={"price": 1000.0})
    assert [row["price"] and str(row["price"]) for row in rows] == [None, "1299.00"]
    assert aside == {"price: bad price": 1}
