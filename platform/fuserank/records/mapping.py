"""A raw row's columns → our fields, as a config's Table section says. Reads and writes nothing."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuserank.errors import ConfigError
from fuserank.records.fields import is_empty, plain
from fuserank.records.quarantine import ROW, Quarantine
from fuserank.records.sources import RawRow, missing_column, open_tables

ATTRIBUTES = "attributes."


@dataclass(frozen=True)
class ColumnMap:
    """Field → column (or columns).

    Args:
        fields: the fields a record of this kind has.
        columns: field, or `attributes.<name>`, → the shop's column or columns.
        constants: field → the same value for every row.
        labels: columns that must exist but fill no field.
        key: the config section, for messages.
    """

    fields: tuple[str, ...]
    columns: Mapping[str, str | list[str]]
    constants: Mapping[str, str | float | bool]
    labels: tuple[str, ...] = ()
    key: str = "records.products"

    def __post_init__(self) -> None:
        """Refuse unknown fields and labels mapped to fields.

        Raises:
            ConfigError: naming the nearest field.
        """
        for field in [*self.columns, *self.constants]:
            if field not in self.fields and not (field.startswith(ATTRIBUTES) and "attributes" in self.fields):
                near = difflib.get_close_matches(field, self.fields, n=1, cutoff=0.4)
                hint = f"Did you mean `{near[0]}`?" if near else f"Fields: {', '.join(self.fields)}."
                raise ConfigError(f"{self.key}.map: there is no field `{field}`.", hint)
        for field, column in self.columns.items():
            leaked = set(_names(column)) & set(self.labels)
            if leaked:
                raise ConfigError(
                    f"{self.key}.map.{field}: column {sorted(leaked)[0]!r} is a label and must not fill a field.",
                    "Take it out of records.labels or out of the map.",
                )

    @property
    def required(self) -> list[str]:
        """Every column the config names."""
        return [name for column in self.columns.values() for name in _names(column)] + list(self.labels)

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
            field: values[field] for field in self.fields if field in values and field not in self.labels
        }
        attributes: dict[str, Any] = {}
        for field, column in self.columns.items():
            value = values.get(column) if isinstance(column, str) else [values.get(name) for name in column]
            if field.startswith(ATTRIBUTES):
                attributes[field.removeprefix(ATTRIBUTES)] = value
            else:
                found[field] = value
        for field, value in self.constants.items():
            if field.startswith(ATTRIBUTES):
                attributes[field.removeprefix(ATTRIBUTES)] = value
            else:
                found[field] = value
        if attributes:
            given = found.get("attributes")
            found["attributes"] = {**given, **attributes} if isinstance(given, dict) else attributes
        return found


def _names(column: str | list[str]) -> list[str]:
    return [column] if isinstance(column, str) else list(column)


def joined(value: Any) -> Any:
    """Several columns mapped to a one-valued field: their texts joined by a space; else the value itself."""
    if isinstance(value, list):
        return " ".join(plain(part) for part in value if not is_empty(part))
    return value


def read_rows(
    root: Path, files: list[str], columns: ColumnMap, quarantine: Quarantine
) -> Iterator[tuple[RawRow, dict[str, Any], dict[str, Any]]]:
    """Every readable row of a table: where it stands, its mapped fields, its raw columns; others are set aside.

    Raises:
        InputError: missing file, missing column, damaged file.
    """
    for file in open_tables(root, files, f"{columns.key}.files"):
        if file.columns is not None:
            columns.check(file.source, file.columns)
        seen: set[str] = set()
        for row in file.rows:
            quarantine.rows_in += 1
            if row.values is None:
                quarantine.add(row.source, row.position, ROW, row.problem, row.detail)
                continue
            if file.columns is None:
                seen.update(row.values)
            yield row, columns.apply(row.values), row.values
        if file.columns is None and seen:  # a JSON file's columns are known only once it has been read
            columns.check(file.source, seen)
