"""What answers earned, for judging live. Reads IMPRESSIONS and EVENTS.

An answer's value is its reward a position: products of it that got a rewarding event, of those shown; 0 where nothing
was found to show. Rewards count for a time after the answer that is the same for all, so that an old answer, which has
had all the time there is, compares with a new one. Times are ms since 1970, of when a row was stored: one clock, and an
order in which nothing comes later into the past.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from fuserank.store.tables import EVENTS, IMPRESSIONS


@dataclass(frozen=True)
class Earned:
    """One answer and what it earned."""

    request_id: str
    stored: int
    kind: str  # of answer: search, recommend, similar
    policy: str  # kind of policy, without its version
    visitor: str  # whose answers belong together: the user, else the session, else the answer itself
    value: float  # 0 … 1


@dataclass(frozen=True)
class Asked:
    """Which answers, and how they are judged."""

    reward: str  # the type of event
    within: int  # ms after an answer that it may be earned in
    kinds: tuple[str, ...]  # of answers
    since: int  # answered then or later; before `until` in any case
    until: int  # stored then or earlier
    generation: str | None = None  # None: of any
    policies: tuple[str, ...] | None = None  # kinds; None: any, also none


def after(connection: sa.Connection, asked: Asked, last: tuple[int, str], limit: int) -> list[Earned]:
    """The next `limit` answers beyond `last`, (stored, request_id), in that order."""
    stored, request = IMPRESSIONS.c.stored, IMPRESSIONS.c.request_id
    beyond = sa.or_(stored > last[0], sa.and_(stored == last[0], request > last[1]))
    query = _query(asked).where(beyond, stored >= last[0]).order_by(stored, request)
    return _valued(connection, asked, connection.execute(query.limit(limit)).all())


def latest(connection: sa.Connection, asked: Asked, limit: int) -> list[Earned]:
    """The last `limit` answers, the latest first."""
    order = (IMPRESSIONS.c.stored.desc(), IMPRESSIONS.c.request_id.desc())
    rows = connection.execute(_query(asked).order_by(*order).limit(limit)).all()
    return [value for start in range(0, len(rows), 500) for value in _valued(connection, asked, rows[start:][:500])]


def _query(asked: Asked) -> sa.Select:
    names = ("request_id", "stored", "kind", "policy", "user_id", "session_id", "product_ids")
    columns = IMPRESSIONS.c
    query = sa.select(*(columns[name] for name in names)).where(
        columns.kind.in_(asked.kinds), columns.timestamp >= asked.since, columns.stored <= asked.until
    )
    if asked.generation is not None:
        query = query.where(columns.generation == asked.generation)
    if asked.policies is not None:
        query = query.where(
            sa.or_(*(columns.policy.startswith(f"{kind}@", autoescape=True) for kind in asked.policies))
        )
    return query


def _valued(connection: sa.Connection, asked: Asked, rows: Sequence[sa.Row]) -> list[Earned]:
    columns = (EVENTS.c.request_id, EVENTS.c.product_id, EVENTS.c.stored)
    query = sa.select(*columns).where(EVENTS.c.type == asked.reward, EVENTS.c.request_id.in_([r[0] for r in rows]))
    stored = {row.request_id: row.stored for row in rows}
    earned: dict[str, set[str]] = {}
    for request, product, at in connection.execute(query):
        if at - stored[request] <= asked.within:
            earned.setdefault(request, set()).add(product)
    found = []
    for row in rows:
        shown = json.loads(row.product_ids or "[]")
        value = len(earned.get(row.request_id, set()) & set(shown)) / len(shown) if shown else 0.0
        visitor = f"user {row.user_id}" if row.user_id else f"session {row.session_id}" if row.session_id else None
        kind = (row.policy or "").partition("@")[0]
        found.append(Earned(row.request_id, row.stored, row.kind, kind, visitor or row.request_id, value))
    return found
