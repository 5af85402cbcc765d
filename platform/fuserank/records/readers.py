"""One stream of bytes → raw rows, by its format. Reads CSV, TSV, JSON lines or arrays, Parquet, atomic files, sequences
and JSON objects.

Every row comes back with the file it stands in and its 0-based position there, also the rows that cannot be read.
"""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.errors import InputError

ATOMIC = (".inter", ".item", ".user")  # tab-separated, the header tells each column's type: `movie_title:token_seq`
FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", *ATOMIC)
Format = Literal["auto", "sequences", "object", "names"]


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in a file; `values` is None if it could not be read, and then `problem` says why."""

    source: str
    position: int
    values: dict[str, Any] | None
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True)
class TableFile:
    """One file's rows. `columns` is known before reading for CSV, TSV and Parquet, None for JSON."""

    source: str
    columns: list[str] | None
    rows: Iterator[RawRow]


class guard:  # noqa: N801  (reads as a statement)
    """Turns damaged-file errors into InputError naming the file."""

    def __init__(self, source: str):
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (OSError, EOFError, zipfile.BadZipFile, pa.ArrowException, RuntimeError)):
            raise InputError(f"{self._source} cannot be read: {error}", "Check that the file is whole.") from None


def format_of(name: str) -> str | None:
    """The table format a file's name tells, None if none."""
    suffix = PurePosixPath(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in FORMATS else None


def open_stream(stream: IO[bytes], source: str, form: Format) -> TableFile:
    """The rows of one open file.

    Raises:
        InputError: unknown format, or a damaged file (also later, while its rows are read).
    """
    kind = format_of(source)
    if kind is None and form == "auto":
        raise InputError(
            f"{source}: unknown table format.", f"Readable are {', '.join(FORMATS)}, plain, .gz or inside a .zip."
        )
    with guard(source):
        if source.lower().endswith(".gz"):
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        if kind == ".parquet" and form == "auto":
            return _parquet(stream, source)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        if form == "sequences":
            return TableFile(source, ["user_id", "item_id", "step"], _guarded(_sequences(text, source), source))
        if form == "object":
            return TableFile(source, ["key", "value"], _guarded(_entries(text, source), source))
        if kind in ATOMIC:
            return _atomic(text, source)
        if kind in (".csv", ".tsv"):
            return _delimited(text, source, "\t" if kind == ".tsv" else ",")
        return TableFile(source, None, _guarded(_json(text, source), source))


def _guarded(rows: Iterator[RawRow], source: str) -> Iterator[RawRow]:
    with guard(source):
        yield from rows


def _parquet(stream: IO[bytes], source: str) -> TableFile:
    file = pq.ParquetFile(pa.BufferReader(stream.read()))

    def rows() -> Iterator[RawRow]:
        position = 0
        for batch in file.iter_batches():
            for values in batch.to_pylist(maps_as_pydicts="lossy"):
                yield RawRow(source, position, values)
                position += 1

    return TableFile(source, list(file.schema_arrow.names), _guarded(rows(), source))


def _delimited(text: IO[str], source: str, delimiter: str) -> TableFile:
    reader = csv.reader(text, delimiter=delimiter)
    try:
        columns = next(reader, [])
    except csv.Error as error:
        raise InputError(f"{source}: the header line cannot be read: {error}") from None
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise InputError(f"{source}: column {doubled[0]!r} occurs more than once.", "Rename one in the header line.")

    def rows() -> Iterator[RawRow]:
        position = 0
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RawRow(source, position, None, "malformed line", str(error))
                position += 1
                continue
            if not cells:  # a blank line is no row
                continue
            if len(cells) == len(columns):
                yield RawRow(source, position, dict(zip(columns, cells, strict=True)))
            else:
                detail = f"{len(cells)} values for {len(columns)} columns"
                yield RawRow(source, position, None, "wrong number of columns", detail)
            position += 1

    return TableFile(source, columns, _guarded(rows(), source))


def _atomic(text: IO[str], source: str) -> TableFile:
    """The atomic files of RecBole (https://recbole.io/atomic_files.html); a column of type …_seq holds a list."""
    header = [name.partition(":") for name in text.readline().rstrip("\r\n").split("\t")]
    lists = {name for name, _, kind in header if kind.endswith("_seq")}
    columns = [name for name, _, _ in header]
    table = _delimited(io.StringIO("\t".join(columns) + "\n"), source, "\t")  # refuses a doubled column

    def rows() -> Iterator[RawRow]:
        for position, line in enumerate(line for line in text if line.strip()):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) != len(columns):
                detail = f"{len(cells)} values for {len(columns)} columns"
                yield RawRow(source, position, None, "wrong number of columns", detail)
                continue
            values: dict[str, Any] = dict(zip(columns, cells, strict=True))
            yield RawRow(source, position, values | {name: values[name].split() for name in lists})

    return TableFile(source, table.columns, _guarded(rows(), source))


def _sequences(text: IO[str], source: str) -> Iterator[RawRow]:
    """A row an item: whose, which, and the how-manieth of that user."""
    position = 0
    for line in text:
        user, *items = line.split() or [""]
        if user and not items:
            yield RawRow(source, position, None, "no items", user)
            position += 1
        for step, item in enumerate(items):
            yield RawRow(source, position, {"user_id": user, "item_id": item, "step": step})
            position += 1


def _entries(text: IO[str], source: str) -> Iterator[RawRow]:
    try:
        found = json.loads(text.read())
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{source} is not valid JSON: {error}", "Check that the file is whole.") from None
    if not isinstance(found, dict):
        raise InputError(f"{source} holds no JSON object.", "Leave format out: lists and lines are read as they are.")
    for position, (key, value) in enumerate(found.items()):
        yield RawRow(source, position, _flat({"key": key, "value": value}))


def _json(text: IO[str], source: str) -> Iterator[RawRow]:
    """A JSON array of objects, or one object a line; told apart by the first character."""
    head = text.readline()
    while head and not head.strip():
        head = text.readline()
    if head.lstrip().startswith("["):
        try:
            found = json.loads(head + text.read())
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{source} is not valid JSON: {error}", "Check that the file is whole.") from None
        for position, values in enumerate(found):
            yield _object(source, position, values)
        return
    position = 0
    while head:
        if head.strip():
            try:
                yield _object(source, position, json.loads(head))
            except (ValueError, RecursionError) as error:
                yield RawRow(source, position, None, "malformed line", str(error))
            position += 1
        head = text.readline()


def _object(source: str, position: int, values: Any) -> RawRow:
    if isinstance(values, dict):
        return RawRow(source, position, _flat(values))
    return RawRow(source, position, None, "not an object", type(values).__name__)


def _flat(values: dict[str, Any], depth: int = 8) -> dict[str, Any]:
    """The same with a column `a.b` for each entry b of an object a, so that a config can name it; a column that has
    such a name itself keeps its value."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and depth:
            nested |= {f"{name}.{inner}": deep for inner, deep in _flat(value, depth - 1).items()}
    return nested | values if nested else values
