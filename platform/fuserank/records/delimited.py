"""CSV and its kin → raw rows. A damaged line spoils itself and no other."""

import csv
import re
from collections import deque
from collections.abc import Iterator

from fuserank.errors import InputError
from fuserank.records.rows import Lines, RawRow, TableFile, guarded

LARGEST_CELL = 64 * 1024 * 1024  # characters
DELIMITERS = (",", ";", "\t", "|")
LONGEST_RECORD = 16 * 1024 * 1024  # characters; a quote still open after so many is a stray one
csv.field_size_limit(LARGEST_CELL)


def delimited(text: Lines, source: str, delimiter: str | None) -> TableFile:
    """The rows of a file below its header line.

    Args:
        delimiter: None for the most frequent of DELIMITERS in the header line.

    Raises:
        InputError: a header line that cannot be read or names a column twice.
    """
    lines = iter(text)
    head = next(lines, "")
    if head.startswith("sep=") and len(head.rstrip("\r\n")) == 5:  # Excel's own hint
        delimiter, head = head[4], next(lines, "")
    while head.count('"') % 2 and len(head) < LONGEST_RECORD and (more := next(lines, "")):
        head += more
    if delimiter is None:
        bare = re.sub(r'"[^"]*"', "", head)
        delimiter = max(DELIMITERS, key=bare.count)  # the first of equals
    try:
        columns = next(csv.reader([head], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise InputError(f"{source}: the header line cannot be read: {error}") from None
    columns = [name or f"column {place}" for place, name in enumerate(columns, 1)]
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise InputError(f"{source}: column {doubled[0]!r} occurs more than once.", "Rename one in the header line.")

    def rows() -> Iterator[RawRow]:
        for position, cells in enumerate(_records(lines, delimiter, len(columns))):
            if isinstance(cells, str):
                yield RawRow(source, position, None, "malformed line", cells)
            elif len(cells) == len(columns):
                yield RawRow(source, position, dict(zip(columns, cells, strict=True)))
            else:
                detail = f"{len(cells)} values for {len(columns)} columns"
                yield RawRow(source, position, None, "wrong number of columns", detail)

    return TableFile(source, columns, guarded(rows(), source))


def _records(lines: Iterator[str], delimiter: str, columns: int) -> Iterator[list[str] | str]:
    """The cells of each record, or what is wrong with it. A record is a line, or several where a quoted cell has line
    breaks; a quote that never closes as it should spoils its own line and no other."""
    waiting: deque[str] = deque()
    while True:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            return
        if not line.strip("\r\n"):
            continue  # a blank line is no row
        if '"' not in line:
            yield next(csv.reader([line], delimiter=delimiter))
            continue
        stray = open_quote = line.count('"') % 2 == 1
        taken, length = [line], len(line)
        while open_quote and length < LONGEST_RECORD:
            more = waiting.popleft() if waiting else next(lines, None)
            if more is None:
                break
            taken.append(more)
            length += len(more)
            open_quote = more.count('"') % 2 == 0
        reader = csv.reader(taken, delimiter=delimiter, strict=True)
        try:
            yield next(reader)
            waiting.extendleft(reversed(taken[reader.line_num :]))  # a quote inside a cell had opened nothing
        except csv.Error as error:
            waiting.extendleft(reversed(taken[1:]))
            literal = next(csv.reader(taken[:1], delimiter=delimiter, quoting=csv.QUOTE_NONE))
            yield literal if stray and len(literal) == columns else f"{error}: {line[:80].strip()}"
