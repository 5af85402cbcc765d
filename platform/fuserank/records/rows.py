"""A raw row, the file it stands in, and text line by line: what every reader gives and takes. Reads nothing itself."""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from fuserank.errors import InputError


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


_DAMAGED = (
    *(OSError, EOFError, RuntimeError, UnicodeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, pa.ArrowException),
)


class guard:  # noqa: N801  (reads as a statement)
    """Turns damaged-file errors into InputError naming the file."""

    def __init__(self, source: str):
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _DAMAGED):
            raise InputError(f"{self._source} cannot be read: {error}", "Check that the file is whole.") from None


def guarded(rows: Iterator[RawRow], source: str) -> Iterator[RawRow]:
    """Rows whose reading raises InputError where the file is damaged."""
    with guard(source):
        yield from rows


_ESCAPED = re.compile("[\udc80-\udcff]+")  # what decoding with surrogateescape leaves of bytes it cannot read


class Lines:
    """Text line by line, repaired: bytes that are no UTF-8 are read as cp1252, as old spreadsheets write it."""

    def __init__(self, text: IO[str]):
        self._text = text

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            yield line if line.isascii() else _repaired(line)

    def readline(self) -> str:
        return _repaired(self._text.readline())

    def read(self) -> str:
        return _repaired(self._text.read())


def _repaired(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[0].encode("ascii", "surrogateescape").decode("cp1252", "replace"), text)


def flat(values: dict[str, Any], depth: int = 8) -> dict[str, Any]:
    """The same with a column `a.b` for each entry b of an object a, so that a config can name it; a column that has
    such a name itself keeps its value."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and depth:
            nested |= {f"{name}.{inner}": deep for inner, deep in flat(value, depth - 1).items()}
    return nested | values if nested else values
