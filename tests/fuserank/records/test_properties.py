"""Whatever stands in a file: no crash, and every row is a product or in quarantine. Over 2,000 cases a run."""

import contextlib
import csv
import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fuserank.errors import EmptyCatalogueError, InputError, MediaError
from fuserank.features.audio import decode_audio, log_mel
from fuserank.features.image import decode_image
from fuserank.records.mapping import ColumnMap
from fuserank.records.products import FIELDS, STAGED, read_products
from fuserank.records.quarantine import Quarantine
from fuserank.records.readers import Format, Layout

COLUMNS = ("product_id", "title", "price", "images", "category", "in_stock", "rating", "review_count", "updated_at")
NASTY = [
    "",
    " ",
    "NaN",
    "null",
    "1e999",
    "-5",
    "$1,2,3",
    "12–",
    "\x00",
    "\ud800",
    "a|b||",
    "<p",
    "&#x110000;",
    "٣",
    "1/2",
]
nasty = st.sampled_from([*NASTY, "9" * 40])
word = st.one_of(nasty, st.text(max_size=8), st.integers(-10, 10**18).map(str), st.floats().map(str))
value = st.one_of(word, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(word, max_size=3))
record = st.dictionaries(st.sampled_from(COLUMNS), value, max_size=len(COLUMNS))
junk = st.one_of(st.none(), st.integers(), word, st.lists(value, max_size=2), st.binary(max_size=20).map(repr))

Write = Callable[[list[Any]], bytes]


def _table(delimiter: str) -> Write:
    def write(rows: list[Any]) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            if isinstance(row, dict):
                writer.writerow([str(row.get(name, "")).replace("\x00", "") for name in COLUMNS])
            else:
                out.write(str(row) + "\n")  # as it is: open quotes, too few cells, nothing
        return out.getvalue().encode("utf-8", "replace")

    return write


def _lines(rows: list[Any]) -> bytes:
    return b"\n".join(
        (json.dumps(row) if place % 5 or isinstance(row, dict) else str(row)).encode("utf-8", "replace")
        for place, row in enumerate(rows)
    )


def _array(rows: list[Any]) -> bytes:
    return json.dumps(rows).encode()


def _object(rows: list[Any]) -> bytes:
    return json.dumps({str(place): row for place, row in enumerate(rows)}).encode()


def _atomic(rows: list[Any]) -> bytes:
    head = "\t".join(f"{name}:token_seq" if name == "category" else f"{name}:token" for name in COLUMNS)
    return (head + "\n").encode() + _table("\t")(rows).partition(b"\n")[2]


def _sequences(rows: list[Any]) -> bytes:
    return "\n".join(" ".join(map(str, row.values())) if isinstance(row, dict) else str(row) for row in rows).encode(
        "utf-8", "replace"
    )


def _parquet(rows: list[Any]) -> bytes:
    whole = [row if isinstance(row, dict) else {} for row in rows]
    texts = [[None if name not in row else repr(row[name]) for row in whole] for name in COLUMNS]
    blobs = [pa.array([t.encode("utf-8", "replace") if t else t for t in column]) for column in texts[1:]]
    kinds = [pa.array(texts[0], pa.string()), *blobs]
    out = io.BytesIO()
    pq.write_table(pa.table(kinds, names=list(COLUMNS)), out)
    return out.getvalue()


READERS: dict[str, tuple[str, Write, Format, dict[str, str | list[str]]]] = {
    "csv": ("p.csv", _table(","), "auto", {}),
    "tsv": ("p.tsv", _table("\t"), "auto", {}),
    "lines": ("p.jsonl", _lines, "auto", {}),
    "array": ("p.json", _array, "auto", {}),
    "object": ("p.json", _object, "object", {"product_id": "key", "title": "value"}),
    "atomic": ("p.item", _atomic, "auto", {}),
    "sequences": ("p.txt", _sequences, "sequences", {"product_id": "item_id", "title": "user_id"}),
    "parquet": ("p.parquet", _parquet, "auto", {}),
}


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(rows=st.lists(st.one_of(record, junk), max_size=8))
def test_every_row_goes_somewhere(kind: str, rows: list[Any]) -> None:
    name, write, form, mapped = READERS[kind]
    columns = ColumnMap(FIELDS, mapped, {}, layout=Layout(form))
    aside = Quarantine("products")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(write(rows))
        try:
            table = read_products(Path(folder), [name], columns, aside)
        except EmptyCatalogueError:
            assert aside.rows_in == aside.rows  # nothing came through, and all of it is accounted for
            return
        except InputError:
            assert kind in ("lines", "array", "object")  # a whole file that is no JSON
            return
    assert table.schema.equals(STAGED)
    aside.check(table.num_rows, 1.0)
    ids = table["product_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert all(price is None or price >= 0 for price in table["price"].to_pylist())
    assert all(low is None or high is None or high > low for low, high in zip(*_prices(table), strict=True))


def _prices(table: pa.Table) -> tuple[list, list]:
    return table["price"].to_pylist(), table["price_max"].to_pylist()


def _picture(kind: str) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def _sound(kind: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.sin(np.arange(4000) / 9).astype(np.float32), 8000, format=kind)
    return out.getvalue()


PICTURES = {kind: _picture(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")}
SOUNDS = {kind: _sound(kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}
damage = st.tuples(st.floats(0, 1), st.binary(max_size=12), st.sampled_from(["cut", "write", "insert", "none"]))


def _damaged(data: bytes, where: float, put: bytes, how: str) -> bytes:
    place = int(where * len(data))
    match how:
        case "cut":
            return data[:place]
        case "write":
            return data[:place] + put + data[place + len(put) :]
        case "insert":
            return data[:place] + put + data[place:]
    return data


@contextlib.contextmanager
def _refused(*reasons: str) -> Iterator[None]:
    """A MediaError is fine if it says one of these."""
    try:
        yield
    except MediaError as error:
        if error.message.partition(":")[0] not in reasons:
            raise


@settings(max_examples=300, deadline=None, derandomize=True)
@given(kind=st.sampled_from(sorted(PICTURES)), change=damage, rest=st.one_of(st.none(), st.binary(max_size=200)))
def test_damaged_pictures_decode_or_are_refused(kind: str, change: tuple, rest: bytes | None) -> None:
    data = _damaged(PICTURES[kind], *change) if rest is None else rest
    with _refused("unreadable picture", "picture too large"):
        pixels = decode_image(data, (12, 10), 10_000)
        assert (pixels.shape, pixels.dtype) == ((12, 10, 3), np.uint8)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(kind=st.sampled_from(sorted(SOUNDS)), change=damage, rest=st.one_of(st.none(), st.binary(max_size=200)))
def test_damaged_sounds_decode_or_are_refused(kind: str, change: tuple, rest: bytes | None) -> None:
    data = _damaged(SOUNDS[kind], *change) if rest is None else rest
    with _refused("unreadable sound", "empty sound", "silent sound"):
        samples = decode_audio(data, 16000, 0.5)
        assert samples.shape == (8000,)
        assert np.isfinite(log_mel(samples, 16000, 20).astype(np.float32)).all()


def test_a_header_that_promises_more_than_there_is() -> None:
    """A bitmap of 30,000 × 30,000 pixels in 60 bytes is refused by its header."""
    header = struct.pack("<2sIHHI IiiHHIIiiII", b"BM", 60, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    with pytest.raises(MediaError, match="picture too large"):
        decode_image(header + bytes(6), (8, 8), 40_000_000)
