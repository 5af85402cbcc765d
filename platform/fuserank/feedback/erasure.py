"""Takes erased users out of a run's Parquet files: the log as preprocessed and as joined, figures by user, what is
flagged or quarantined. Rewrites a file only where it holds one of them, whole or not at all.

Rows without a user go too where they are of a session, or about an answer, of an erased user in any of the files. Not
touched: the shop's own files, which are the shop's to change, and a model, which holds weights and no histories.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.store.erasures import digest

FOLDERS = ("preprocess", "feedback", "evaluate", "policy", "iterate")
USERS = {"user_id": "row", "id": "row", "detail": "value"}
"""Columns that may hold a user's id → what goes: the row, or the value alone."""
TRACES = ("session_id", "request_id")
_TOKENS = re.compile(r"[^\s\"',;|:{}\[\]()]+")


def scrub(run: Path, erased: Mapping[str, int]) -> list[Path]:
    """Take users out of the files of a run, or of one of its stages; the files that were changed.

    Args:
        erased: digests (store.erasures.digest) → when; what says that it is from later stays.

    Raises:
        OSError: a file cannot be read or written.
    """
    files = []
    for folder in [run / name for name in FOLDERS if (run / name).is_dir()] or [run]:
        files += [f for f in sorted(folder.rglob("*.parquet")) if "features" not in f.relative_to(folder).parts]
    places = {file: [name for name in USERS if _is_text(file, name)] for file in files}
    traces: dict[str, set[str]] = {name: set() for name in TRACES}
    for file in files:
        if "user_id" in places[file]:
            _collect(file, erased, traces)
    return [file for file in files if places[file] and _scrub(file, places[file], erased, traces)]


def _collect(file: Path, erased: Mapping[str, int], traces: dict[str, set[str]]) -> None:
    names = [name for name in TRACES if _is_text(file, name)]
    times = [name for name in ("timestamp", "shown") if name in pq.read_schema(file).names]
    table = pq.read_table(file, columns=["user_id", *names, *times], memory_map=False)
    going = pa.array(_going(table, "user_id", erased))
    for name in names:
        traces[name] |= set(table[name].filter(going).drop_null().to_pylist())


def _scrub(file: Path, places: list[str], erased: Mapping[str, int], traces: Mapping[str, set[str]]) -> bool:
    table = kept = pq.read_table(file, memory_map=False)
    for name in places:
        going = _going(kept, name, erased)
        whole = USERS[name] == "row" and file.name != "queries.parquet"  # whose rows stand beside their features'
        if name == "user_id" and whole:
            going = [one or other for one, other in zip(going, _traced(kept, traces), strict=True)]
        if not any(going):
            continue
        if whole:
            kept = kept.filter(pa.array([not one for one in going]))
        else:
            values = [None if one else value for one, value in zip(going, kept[name].to_pylist(), strict=True)]
            place = kept.schema.get_field_index(name)
            kept = kept.set_column(place, kept.schema.field(name), pa.array(values, pa.string()))
    if kept is table:
        return False
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    pq.write_table(kept, temporary)
    temporary.replace(file)
    return True


def _going(table: pa.Table, name: str, erased: Mapping[str, int]) -> list[bool]:
    """Of each row, whether the column names a user who was erased after it."""
    since = {value: _since(name, value, erased) for value in table[name].unique().to_pylist() if value is not None}
    if not any(when is not None for when in since.values()):
        return [False] * table.num_rows
    return [
        (until := since.get(value)) is not None and when <= until
        for value, when in zip(table[name].to_pylist(), _times(table), strict=True)
    ]


def _traced(table: pa.Table, traces: Mapping[str, set[str]]) -> list[bool]:
    """Of each row, whether it names nobody, and a session or an answer of somebody erased."""
    found = [False] * table.num_rows
    for name in TRACES:
        if name in table.column_names and traces[name]:
            pairs = zip(found, table["user_id"].to_pylist(), table[name].to_pylist(), strict=True)
            found = [one or (user is None and value in traces[name]) for one, user, value in pairs]
    return found


def _since(column: str, value: str, erased: Mapping[str, int]) -> int | None:
    """When a user that the value names was erased."""
    found = _TOKENS.findall(value) if column == "detail" else [value]
    return max((erased[one] for one in map(digest, found) if one in erased), default=None)


def _times(table: pa.Table) -> list[int]:
    """When each row is from (ms); 0 where nothing says so."""
    name = next((name for name in ("timestamp", "shown") if name in table.column_names), None)
    if name is None:
        return [0] * table.num_rows
    return [when or 0 for when in table[name].cast(pa.timestamp("ms")).cast(pa.int64()).to_pylist()]


def _is_text(file: Path, name: str) -> bool:
    schema = pq.read_schema(file)
    return name in schema.names and pa.types.is_string(schema.field(name).type)
