"""One stream of bytes → raw rows, by its format. Reads CSV, TSV, JSON lines or arrays, Parquet, atomic files, sequences
and JSON objects.

Every row comes back with the file it stands in and its 0-based position there, also the rows that cannot be read.
"""

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Literal, cast

from fuserank.errors import InputError
from fuserank.records.delimited import delimited
from fuserank.records.parquet import parquet
from fuserank.records.rows import Lines, RawRow, TableFile, flat, guard, guarded

ATOMIC = (".inter", ".item", ".user")  # tab-separated, the header tells each column's type: `movie_title:token_seq`
FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", *ATOMIC)
UTF8 = "utf-8-sig"  # with or without its mark
Format = Literal["auto", "sequences", "object", "names"]


@dataclass(frozen=True)
class Layout:
    """How a table's files are written.

    Args:
        form: `auto` goes by the file's name.
        encoding: None for UTF-16 by its mark, else UTF-8, and cp1252 for bytes that are no UTF-8.
        delimiter: of .csv files; None for the most frequent one in the header line.
    """

    form: Format = "auto"
    encoding: str | None = None
    delimiter: str | None = None


AUTO = Layout()


def format_of(name: str) -> str | None:
    """The table format a file's name tells, None if none."""
    suffix = PurePosixPath(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in FORMATS else None


def open_stream(stream: IO[bytes], source: str, layout: Layout = AUTO) -> TableFile:
    """The rows of one open file.

    Raises:
        InputError: unknown format, or a damaged file (also later, while its rows are read).
    """
    kind, form = format_of(source), layout.form
    if kind is None and form == "auto":
        raise InputError(
            f"{source}: unknown table format.", f"Readable are {', '.join(FORMATS)}, plain, .gz or inside a .zip."
        )
    with guard(source):
        if source.lower().endswith(".gz"):
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        if kind == ".parquet" and form == "auto":
            return parquet(stream, source)
        encoding = _encoding(stream, layout.encoding)
        if encoding is None:
            return TableFile(source, None, iter(()))  # an empty file
        errors = "surrogateescape" if encoding == UTF8 else "replace"
        text = Lines(io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline=""))
        if form == "sequences":
            return TableFile(source, ["user_id", "item_id", "step"], guarded(_sequences(text, source), source))
        if form == "object":
            return TableFile(source, ["key", "value"], guarded(_entries(text, source), source))
        if kind in ATOMIC:
            return _atomic(text, source)
        if kind in (".csv", ".tsv"):
            return delimited(text, source, "\t" if kind == ".tsv" else layout.delimiter)
        return TableFile(source, None, guarded(_json(text, source, kind == ".json"), source))


def _encoding(stream: IO[bytes], wanted: str | None) -> str | None:
    """The encoding of a stream, which is left at its beginning; None for an empty one.

    Raises:
        InputError: there is no such encoding.
    """
    head = stream.read(4)
    stream.seek(0)
    if not head:
        return None
    if wanted is None:
        return "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else UTF8
    try:
        return codecs.lookup(wanted).name
    except LookupError:
        raise InputError(f"unknown encoding {wanted!r}.", "Write e.g. cp1252, shift_jis or utf-16.") from None


def _atomic(text: Lines, source: str) -> TableFile:
    """The atomic files of RecBole (https://recbole.io/atomic_files.html); a column of type …_seq holds a list."""
    header = [name.partition(":") for name in text.readline().rstrip("\r\n").split("\t")]
    lists = {name for name, _, kind in header if kind.endswith("_seq")}
    columns = [name for name, _, _ in header]
    table = delimited(Lines(io.StringIO("\t".join(columns) + "\n")), source, "\t")  # refuses a doubled column

    def rows() -> Iterator[RawRow]:
        for position, line in enumerate(line for line in text if line.strip()):
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) != len(columns):
                detail = f"{len(cells)} values for {len(columns)} columns"
                yield RawRow(source, position, None, "wrong number of columns", detail)
                continue
            values: dict[str, Any] = dict(zip(columns, cells, strict=True))
            yield RawRow(source, position, values | {name: values[name].split() for name in lists})

    return TableFile(source, table.columns, guarded(rows(), source))


def _sequences(text: Lines, source: str) -> Iterator[RawRow]:
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


def _entries(text: Lines, source: str) -> Iterator[RawRow]:
    try:
        found = json.loads(text.read())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not valid JSON: {error}", "Check that the file is whole.") from None
    if not isinstance(found, dict):
        raise InputError(f"{source} holds no JSON object.", "Leave format out: lists and lines are read as they are.")
    for position, (key, value) in enumerate(found.items()):
        yield RawRow(source, position, flat({"key": key, "value": value}))


def _json(text: Lines, source: str, whole: bool) -> Iterator[RawRow]:
    """A JSON array of objects, or one object a line. A file of lines (`whole` is False) is an array only if its first
    line opens one without closing it."""
    head = text.readline()
    while head and not head.strip():
        head = text.readline()
    if head.lstrip().startswith("[") and (whole or not _parses(head)):
        try:
            found = json.loads(head + text.read())
        except (ValueError, RecursionError) as error:
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


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _object(source: str, position: int, values: Any) -> RawRow:
    if isinstance(values, dict):
        return RawRow(source, position, flat(values))
    return RawRow(source, position, None, "not an object", type(values).__name__)
