"""Users whose data is erased on request. Deletes from EVENTS and IMPRESSIONS; reads and writes ERASURES.

ERASURES never holds an id, only its SHA-256: enough to know an erased user's data when it turns up once more – in a
spool, in a client's queue, in a file of the shop – and to leave out what is from before the erasure. What is from after
it is the data of somebody new.
"""

import hashlib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.store.tables import ERASURES, EVENTS, IMPRESSIONS

AT_ONCE = 500  # ids in one statement


@dataclass(frozen=True)
class Erased:
    """Rows that were deleted."""

    events: int
    impressions: int


def digest(user_id: str) -> str:
    """What is kept of an erased user's id."""
    return hashlib.sha256(f"fuserank user {user_id}".encode("utf-8", "replace")).hexdigest()


def covered(user_id: str | None, timestamp: int, erased: Mapping[str, int]) -> bool:
    """Whether something of this moment (ms) belongs to what was erased.

    Args:
        erased: digest → when (ms).
    """
    if user_id is None or not erased:
        return False
    return timestamp <= erased.get(digest(user_id), -1)


def erase(connection: sa.Connection, user_id: str) -> Erased:
    """Delete the user's answers and events, and those without a user of the same sessions and answers; remember it."""
    row = {"digest": digest(user_id), "at": time.time_ns() // 1_000_000, "scrubbed": False}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(ERASURES)
    changed = {"at": statement.excluded["at"], "scrubbed": False}
    connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=changed), row)
    sessions, requests = set(), set()
    for table in (EVENTS, IMPRESSIONS):
        own = sa.select(table.c.session_id).where(table.c.user_id == user_id, table.c.session_id.is_not(None))
        sessions |= set(connection.execute(own.distinct()).scalars())
    answered = sa.select(IMPRESSIONS.c.request_id)
    requests |= set(connection.execute(answered.where(IMPRESSIONS.c.user_id == user_id)).scalars())
    counts = {}
    for table in (EVENTS, IMPRESSIONS):
        counts[table.name] = connection.execute(sa.delete(table).where(table.c.user_id == user_id)).rowcount
        for column, keys in ((table.c.session_id, sessions), (table.c.request_id, requests)):
            for part in _parts(keys):
                nobody = sa.delete(table).where(table.c.user_id.is_(None), column.in_(part))
                counts[table.name] += connection.execute(nobody).rowcount
    return Erased(counts["events"], counts["impressions"])


def read(connection: sa.Connection) -> dict[str, int]:
    """digest → when it was erased last (ms)."""
    return {row.digest: row.at for row in connection.execute(sa.select(ERASURES.c.digest, ERASURES.c.at))}


def unscrubbed(connection: sa.Connection) -> list[tuple[str, int]]:
    """(digest, when) of those whose traces in the run's files have not been taken out yet."""
    query = sa.select(ERASURES.c.digest, ERASURES.c.at).where(sa.not_(ERASURES.c.scrubbed))
    return [(row.digest, row.at) for row in connection.execute(query)]


def scrubbed(connection: sa.Connection, done: Collection[tuple[str, int]]) -> None:
    """They have been, unless the user was erased once more since."""
    for identity, at in done:
        change = sa.update(ERASURES).where(ERASURES.c.digest == identity, ERASURES.c.at == at)
        connection.execute(change.values(scrubbed=True))


def prune(connection: sa.Connection, before: int, limit: int) -> int:
    """Delete at most `limit` events and as many impressions stored before a moment (ms); how many there were."""
    count = 0
    for table in (EVENTS, IMPRESSIONS):
        (key,) = table.primary_key.columns
        old = sa.select(key).where(table.c.stored < before).order_by(table.c.stored).limit(limit)
        count += connection.execute(sa.delete(table).where(key.in_(old.scalar_subquery()))).rowcount
    return count


def _parts(keys: Collection[str]) -> list[list[str]]:
    ordered = sorted(keys)
    return [ordered[start : start + AT_ONCE] for start in range(0, len(ordered), AT_ONCE)]
