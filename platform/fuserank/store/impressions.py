"""The impressions table: what was answered. Reads and writes IMPRESSIONS; rows come out as schema IMPRESSION."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from fuserank.records.schema import IMPRESSION
from fuserank.store.erasures import covered
from fuserank.store.tables import EVENTS, IMPRESSIONS
from fuserank.store.validate import RowError, impression_row
from fuserank.store.writer import GroupWriter

COLUMNS = [IMPRESSIONS.c[name] for name in IMPRESSION.names]


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer that a user was given."""

    timestamp: int  # ms since 1970
    product_ids: tuple[str, ...]  # in order
    turned: frozenset[str]  # of these, what the user turned to, by events that name the answer


def add(
    writer: GroupWriter, impressions: list[Any], erased: Mapping[str, int]
) -> tuple[int, int, list[dict[str, Any]]]:
    """(accepted, duplicates, rejected); idempotent by request_id; `erased` as in events.add."""
    now, rows, rejected = time.time_ns() // 1_000_000, [], []
    for index, impression in enumerate(impressions):
        try:
            row = impression_row(impression, now)
            if covered(row["user_id"], row["timestamp"], erased):
                raise RowError("its user was erased since")
            rows.append(row)
        except RowError as reason:
            rejected.append({"index": index, "reason": str(reason)})
    accepted = writer.insert(IMPRESSIONS, rows)
    return accepted, len(rows) - accepted, rejected


def read(connection: sa.Connection, since: int) -> pa.Table:
    """Impressions accepted at or after `since` (ms), by their own time; schema IMPRESSION."""
    query = sa.select(*COLUMNS).where(IMPRESSIONS.c.stored >= since)
    rows = connection.execute(query.order_by(IMPRESSIONS.c.timestamp, IMPRESSIONS.c.request_id)).all()
    columns = list(zip(*rows, strict=True)) or [()] * len(IMPRESSION)
    arrays = []
    for column, kind in zip(columns, IMPRESSION.types, strict=True):
        values = [value and json.loads(value) for value in column] if pa.types.is_list(kind) else column
        arrays.append(pa.array(values, kind))
    return pa.table(arrays, schema=IMPRESSION)


def queries(connection: sa.Connection, limit: int) -> list[tuple[str, int]]:
    """Texts that were searched for, with how often; the latest `limit` different ones, the latest first."""
    latest = sa.func.max(IMPRESSIONS.c.timestamp)
    query = sa.select(IMPRESSIONS.c.query, sa.func.count()).where(
        IMPRESSIONS.c.kind == "search", IMPRESSIONS.c.query.is_not(None)
    )
    query = query.group_by(IMPRESSIONS.c.query).order_by(latest.desc(), IMPRESSIONS.c.query).limit(limit)
    return [(text, count) for text, count in connection.execute(query)]


def shown(connection: sa.Connection, user_id: str, limit: int, types: Sequence[str]) -> list[Shown]:
    """The user's last `limit` answers, oldest first. types: of events that say what was turned to."""
    columns = (IMPRESSIONS.c.request_id, IMPRESSIONS.c.timestamp, IMPRESSIONS.c.product_ids)
    query = sa.select(*columns).where(IMPRESSIONS.c.user_id == user_id)
    latest = query.order_by(IMPRESSIONS.c.timestamp.desc(), IMPRESSIONS.c.request_id).limit(limit)
    answers = connection.execute(latest).all()
    if not answers:
        return []
    named = EVENTS.c.request_id.in_([answer.request_id for answer in answers])
    events = sa.select(EVENTS.c.request_id, EVENTS.c.product_id).where(named, EVENTS.c.type.in_(types))
    turned: dict[str, set[str]] = {}
    for request, product in connection.execute(events):
        turned.setdefault(request, set()).add(product)
    return [
        Shown(answer.timestamp, tuple(json.loads(answer.product_ids or "[]")), frozenset(turned.get(request, ())))
        for answer in reversed(answers)
        for request in [answer.request_id]
    ]
