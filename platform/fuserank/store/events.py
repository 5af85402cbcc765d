"""The events table: what users did. Reads and writes EVENTS; rows come out as records.schema.EVENT."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from fuserank.records.schema import EVENT
from fuserank.store.erasures import covered
from fuserank.store.tables import EVENTS
from fuserank.store.validate import RowError, event_row
from fuserank.store.writer import GroupWriter

AT_ONCE = 500  # users in one query
# Which query an answer was for is told by the impression of that request_id.
COLUMNS = [EVENTS.c[name] if name in EVENTS.c else sa.null().label(name) for name in EVENT.names]


def add(writer: GroupWriter, events: list[Any], erased: Mapping[str, int]) -> tuple[int, int, list[dict[str, Any]]]:
    """(accepted, duplicates, rejected); rejected entries are {"index", "reason"}.

    Args:
        erased: digests of erased users → when (erasures.py).
    """
    now, rows, rejected = time.time_ns() // 1_000_000, [], []
    for index, event in enumerate(events):
        try:
            row = event_row(event, now)
            if covered(row["user_id"], row["timestamp"], erased):
                raise RowError("its user was erased since")
            rows.append(row)
        except RowError as reason:
            rejected.append({"index": index, "reason": str(reason)})
    accepted = writer.insert(EVENTS, rows)
    return accepted, len(rows) - accepted, rejected


def recent(connection: sa.Connection, user_id: str, limit: int, types: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """The user's last `limit` events by their own time, oldest first; timestamps in ms."""
    query = sa.select(*COLUMNS).where(EVENTS.c.user_id == user_id)
    if types is not None:
        query = query.where(EVENTS.c.type.in_(types))
    query = query.order_by(EVENTS.c.timestamp.desc(), EVENTS.c.stored.desc(), EVENTS.c.event_id.desc()).limit(limit)
    return [dict(row) for row in reversed(connection.execute(query).mappings().all())]


def marks(connection: sa.Connection, users: Sequence[str]) -> dict[str, tuple[int, int]]:
    """How many events each of these users has, and the time of the last (ms); who has none is left out."""
    found = {}
    for start in range(0, len(users), AT_ONCE):
        mine = EVENTS.c.user_id.in_(users[start : start + AT_ONCE])
        query = sa.select(EVENTS.c.user_id, sa.func.count(), sa.func.max(EVENTS.c.timestamp)).where(mine)
        found |= {user: (count, last) for user, count, last in connection.execute(query.group_by(EVENTS.c.user_id))}
    return found


def read(connection: sa.Connection, since: int) -> pa.Table:
    """Events accepted at or after `since` (ms), by their own time; schema EVENT."""
    query = sa.select(*COLUMNS).where(EVENTS.c.stored >= since).order_by(EVENTS.c.timestamp, EVENTS.c.event_id)
    rows = connection.execute(query).all()
    columns = list(zip(*rows, strict=True)) or [()] * len(EVENT)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, EVENT.types, strict=True)], schema=EVENT)
