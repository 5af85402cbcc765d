"""A raw row's columns → our fields, as a config's Table section says. Reads and writes nothing."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from fuserank.config import Table
from fuserank.errors import ConfigError
from fuserank.files import Folder
from fuserank.records.fields import is_empty, items, plain
from fuserank.records.money import CENT, LIMIT, Mark
from fuserank.records.quarantine import ROW, Quarantine
from fuserank.records.readers import AUTO, Layout
from fuserank.records.rows import RawRow
from fuserank.records.sources import missing_column, open_tables

ATTRIBUTES = "attributes."
ROW_NUMBER = "@row"  # stands for a column that holds each row's place, for tables without ids
NUMBERS = ("price", "rating", "value", "grade")  # fields that a unit may be given for


@dataclass(frozen=True)
class ColumnMap:
    """Field → column (or columns).

    Args:
        fields: the fields a record of this kind has.
        columns: field, or `attributes.<name>`, → the shop's column or columns.
        constants: field → the same value for every row.
        labels: columns that must exist but fill no field.
        key: the config section, for messages.
        patterns: `attr_*`: every other column that fits becomes the attribute named by what the star stands for.
        scale: number field → factor.
        layout: how the files are written (records/readers.py).
        pairs: columns of `name=value,name=value`; several values as `name=a|b`.
        list_separator: parts the values of a list in one cell.
        path_separator: parts the levels of a category written as a path; None where it is none.
        extract: field → regular expression whose first group is the value.
        values: field → the shop's word → ours.
        decimal: the decimal mark of prices; None goes by the digits.
    """

    fields: tuple[str, ...]
    columns: Mapping[str, str | list[str]]
    constants: Mapping[str, str | float | bool]
    labels: tuple[str, ...] = ()
    key: str = "records.products"
    patterns: tuple[str, ...] = ()
    scale: Mapping[str, float] = field(default_factory=dict)
    layout: Layout = AUTO
    pairs: tuple[str, ...] = ()
    extract: Mapping[str, str] = field(default_factory=dict)
    list_separator: str = "|"
    path_separator: str | None = None
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    decimal: Mark | None = None

    def __post_init__(self) -> None:
        """Refuse unknown fields, labels mapped to fields, and patterns without one star.

        Raises:
            ConfigError: naming the nearest field.
        """
        for name in [*self.columns, *self.constants]:
            if name not in self.fields and not (name.startswith(ATTRIBUTES) and "attributes" in self.fields):
                raise ConfigError(f"{self.key}.map: there is no field `{name}`.", _nearest(name, self.fields))
        for name in self.values:
            if name not in self.fields:
                raise ConfigError(f"{self.key}.values: there is no field `{name}`.", _nearest(name, self.fields))
        numbers = tuple(name for name in NUMBERS if name in self.fields)
        for name in self.scale:
            if name not in numbers:
                raise ConfigError(f"{self.key}.scale: `{name}` is no number field.", _nearest(name, numbers))
        for pattern in self.patterns:
            if pattern.count("*") != 1 or "attributes" not in self.fields:
                raise ConfigError(f"{self.key}.attributes: {pattern!r} needs exactly one star.", "Write e.g. attr_*.")
        for name, expression in self.extract.items():
            if name not in self.fields and name not in self.columns:
                raise ConfigError(f"{self.key}.extract: there is no field `{name}`.", _nearest(name, self.fields))
            try:
                groups = re.compile(expression).groups
            except re.error as error:
                raise ConfigError(f"{self.key}.extract.{name}: {expression!r} is no pattern: {error}.") from None
            if groups < 1:
                raise ConfigError(f"{self.key}.extract.{name}: {expression!r} has no group.", "Put it in parentheses.")
        for name, column in self.columns.items():
            leaked = set(_names(column)) & set(self.labels)
            if leaked:
                raise ConfigError(
                    f"{self.key}.map.{name}: column {sorted(leaked)[0]!r} is a label and must not fill a field.",
                    "Take it out of records.labels or out of the map.",
                )

    @property
    def required(self) -> list[str]:
        """Every column the config names."""
        named = [name for column in self.columns.values() for name in _names(column)]
        return [name for name in named if name != ROW_NUMBER] + list(self.labels) + list(self.pairs)

    def check(self, source: str, columns: Iterable[str]) -> None:
        """Raises InputError naming the nearest columns if the file lacks a mapped one."""
        available = set(columns)
        for column in self.required:
            if column not in available:
                key = "records.labels" if column in self.labels else f"{self.key}.map"
                raise missing_column(source, column, available, key)

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The row's fields with their raw values: one value, or a list where several columns are mapped."""
        found: dict[str, Any] = {
            name: values[name] for name in self.fields if name in values and name not in self.labels
        }
        attributes = self._matching(values) if self.patterns else {}
        for column in self.pairs:
            attributes |= self._paired(values.get(column))
        for name, column in self.columns.items():
            value = values.get(column) if isinstance(column, str) else [values.get(part) for part in column]
            if name.startswith(ATTRIBUTES):
                attributes[name.removeprefix(ATTRIBUTES)] = value
            else:
                found[name] = value
        for name, value in self.constants.items():
            if name.startswith(ATTRIBUTES):
                attributes[name.removeprefix(ATTRIBUTES)] = value
            else:
                found[name] = value
        for name, expression in self.extract.items():
            where, key = (attributes, name.removeprefix(ATTRIBUTES)) if name.startswith(ATTRIBUTES) else (found, name)
            matched = re.search(expression, plain(joined(where.get(key)) or ""))
            where[key] = matched[1] if matched else None
        for name, words in self.values.items():
            if name in found:
                word = plain(joined(found[name]) or "").strip()
                found[name] = words.get(word, found[name])
        if attributes:
            given = found.get("attributes")
            found["attributes"] = {**given, **attributes} if isinstance(given, dict) else attributes
        return found

    def _matching(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes by pattern; a label never becomes one. Of two columns with one name, the first with a value."""
        found: dict[str, Any] = {}
        for pattern in self.patterns:
            before, _, after = pattern.partition("*")
            for column, value in values.items():
                fits = column.startswith(before) and column.endswith(after) and len(column) > len(before) + len(after)
                if fits and column not in self.labels and not is_empty(value):
                    found.setdefault(column[len(before) : len(column) - len(after)], value)
        return found

    def items(self, name: str, mapped: Mapping[str, Any]) -> list[str]:
        """A list field's values; where several columns are mapped to it, each cell may hold a list."""
        value = mapped.get(name)
        if isinstance(self.columns.get(name), list) and isinstance(value, list):
            return [item for cell in value for item in items(cell, self.list_separator)]
        return items(value, self.list_separator)

    def _paired(self, cell: Any) -> dict[str, tuple[str, ...]]:
        """`size=M,material=Wool|Nylon` → values by name; what has no `=` belongs to the value before it."""
        found: dict[str, str] = {}
        last = ""
        for part in plain(cell).split(",") if not is_empty(cell) else []:
            name, equals, value = part.partition("=")
            if equals and name.strip():
                last = name.strip()
                found[last] = value
            elif last:
                found[last] += f",{part}"
        return {name: tuple(value.split("|")) for name, value in found.items()}

    def scaled(self, name: str, value: Any) -> Any:
        """A parsed number in our unit; None stays None.

        Raises:
            ValueError: it is too large in that unit.
        """
        factor = self.scale.get(name)
        if value is None:
            return None
        if isinstance(value, Decimal):
            amount = value if factor is None else value * Decimal(str(factor))
            if amount > LIMIT:
                raise ValueError(f"{value} × {factor} is too large")
            return amount.quantize(CENT)
        return value if factor is None else value * factor


def column_map(table: Table, fields: tuple[str, ...], name: str, labels: Iterable[str] = ()) -> ColumnMap:
    """What the config's section records.`name` says of a table whose records have these fields.

    Raises:
        ConfigError: see ColumnMap.
    """
    key, patterns = f"records.{name}", tuple(table.attributes)
    return ColumnMap(
        fields,
        table.map,
        table.constants,
        tuple(labels),
        key,
        patterns,
        table.scale,
        Layout(table.format, table.encoding, table.delimiter),
        tuple(table.pairs),
        table.extract,
        table.list_separator,
        table.path_separator,
        table.values,
        table.decimal,
    )


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"Did you mean `{near[0]}`?" if near else f"Fields: {', '.join(known) or 'none'}."


def _names(column: str | list[str]) -> list[str]:
    return [column] if isinstance(column, str) else list(column)


def joined(value: Any) -> Any:
    """Several columns mapped to a one-valued field: their texts joined by a space; else the value itself."""
    if isinstance(value, list):
        return " ".join(plain(part) for part in value if not is_empty(part))
    return value


def read_rows(
    root: Folder | Path, files: list[str], columns: ColumnMap, quarantine: Quarantine
) -> Iterator[tuple[RawRow, dict[str, Any], dict[str, Any]]]:
    """Every readable row of a table: where it stands, its mapped fields, its raw columns; others are set aside.

    Raises:
        InputError: missing file, missing column, damaged file.
    """
    numbered = any(ROW_NUMBER in _names(column) for column in columns.columns.values())
    seen: set[str] = set()
    last = ""
    for file in open_tables(root, files, f"{columns.key}.files", columns.layout):
        if file.columns is not None:
            columns.check(file.source, file.columns)
        for row in file.rows:
            quarantine.rows_in += 1
            if row.values is None:
                quarantine.add(row.source, row.position, ROW, row.problem, row.detail)
                continue
            if file.columns is None:
                seen.update(row.values)
                last = file.source
            values = row.values if not numbered else {**row.values, ROW_NUMBER: f"{row.source}:{row.position}"}
            yield row, columns.apply(values), row.values
    if last:  # the columns of JSON files are known only once all have been read
        columns.check(last, seen)
