"""The generations table: which there are and which one answers; and what replicas say of them. Reads and writes
GENERATIONS and GENERATION_PARTS.

One asked for is `warming` until every replica holds it; then it is `active`, and the one before it `retired`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.errors import StoreError
from fuserank.store import decisions
from fuserank.store.decisions import Decision
from fuserank.store.tables import DELTA_VECTORS, GENERATION_PARTS, GENERATIONS

State = Literal["building", "ready", "warming", "active", "retired"]


@dataclass(frozen=True)
class Generation:
    """One generation."""

    id: str
    folder: str
    base_seq: int  # changes up to here are in its files
    state: State
    activated_at: int | None = None  # ms since 1970
    asked_at: int | None = None  # ms since 1970: when its activation was last asked for
    reason: str | None = None  # why that did not come about


@dataclass(frozen=True)
class Part:
    """What one replica says of a generation that is being made ready."""

    generation: str
    deployment: str
    replica: str
    ready: bool
    reason: str | None = None  # why it cannot hold it
    at: int = 0  # ms since 1970


def put(connection: sa.Connection, generation: Generation) -> None:
    """Insert or update; `activated_at` is set by `activate` alone."""
    _upsert(connection, generation, ("folder", "base_seq", "state"))


def register(connection: sa.Connection, generation: Generation) -> None:
    """As `put`, but the state of one that is known already stays."""
    _upsert(connection, generation, ("folder", "base_seq"))


def _upsert(connection: sa.Connection, generation: Generation, changed: Sequence[str]) -> None:
    row = {"id": generation.id, "folder": generation.folder, "base_seq": generation.base_seq}
    row |= {"state": generation.state, "created": _now()}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(GENERATIONS)
    values = {name: statement.excluded[name] for name in changed}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values), row)


def warm(connection: sa.Connection, identity: str) -> None:
    """Ask for a generation; one that was asked for before and is not active yet is not any more.

    Raises:
        StoreError: it is not registered.
    """
    others = sa.update(GENERATIONS).where(GENERATIONS.c.state == "warming", GENERATIONS.c.id != identity)
    connection.execute(others.values(state="ready", reason=f"{identity} was asked for after it"))
    _set(connection, identity, state="warming", asked_at=_now(), reason=None)


def roll_back(connection: sa.Connection, decision: Decision) -> bool:
    """Ask for the incumbent of a decision against the active generation, and write the decision down.

    Returns:
        False, and nothing is done, where that was decided already, or another generation answers or is asked for.

    Raises:
        StoreError: the incumbent is not registered.
    """
    states = {row.id: row.state for row in read(connection)}
    if states.get(decision.candidate) != "active" or "warming" in states.values():
        return False
    if not decisions.add(connection, decision):
        return False
    assert decision.incumbent is not None
    warm(connection, decision.incumbent)
    return True


def refuse(connection: sa.Connection, identity: str, reason: str) -> None:
    """One that was asked for cannot be had."""
    waiting = sa.update(GENERATIONS).where(GENERATIONS.c.id == identity, GENERATIONS.c.state == "warming")
    connection.execute(waiting.values(state="ready", reason=reason))


def activate(connection: sa.Connection, identity: str) -> None:
    """The active one is retired and this one takes its place, in one step.

    Raises:
        StoreError: it is not registered.
    """
    others = sa.update(GENERATIONS).where(GENERATIONS.c.state == "active", GENERATIONS.c.id != identity)
    connection.execute(others.values(state="retired"))
    _set(connection, identity, state="active", activated_at=_now(), reason=None)


def _set(connection: sa.Connection, identity: str, **values: object) -> None:
    change = sa.update(GENERATIONS).where(GENERATIONS.c.id == identity).values(**values)
    if connection.execute(change).rowcount == 0:
        raise StoreError(f"there is no generation {identity!r} in the database.", "GET /v1/generations lists them.")


def read(connection: sa.Connection) -> list[Generation]:
    """Oldest first."""
    names = ("id", "folder", "base_seq", "state", "activated_at", "asked_at", "reason")
    query = sa.select(*(GENERATIONS.c[name] for name in names)).order_by(GENERATIONS.c.created, GENERATIONS.c.id)
    return [Generation(*row) for row in connection.execute(query)]


def report(connection: sa.Connection, part: Part) -> None:
    """What a replica says now, in the place of what it said before."""
    key = ("generation", "deployment", "replica")
    row = {name: getattr(part, name) for name in (*key, "ready", "reason")} | {"at": _now()}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(GENERATION_PARTS)
    values = {name: statement.excluded[name] for name in ("ready", "reason", "at")}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values), row)


def parts(connection: sa.Connection, identity: str) -> list[Part]:
    """What replicas said of this generation, the dead ones too."""
    names = ("generation", "deployment", "replica", "ready", "reason", "at")
    query = sa.select(*(GENERATION_PARTS.c[name] for name in names))
    return [Part(*row) for row in connection.execute(query.where(GENERATION_PARTS.c.generation == identity))]


def forget(connection: sa.Connection, kept: Sequence[str]) -> None:
    """Delete what is known of generations that are not among these and not active."""
    gone = [row.id for row in read(connection) if row.id not in kept and row.state not in ("active", "warming")]
    for identity in gone:
        connection.execute(sa.delete(GENERATIONS).where(GENERATIONS.c.id == identity))
        for table in (GENERATION_PARTS, DELTA_VECTORS):
            connection.execute(sa.delete(table).where(table.c.generation == identity))


def _now() -> int:
    return time.time_ns() // 1_000_000
