"""The generations table: which there are and which one answers. Reads and writes GENERATIONS."""

import time
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.errors import StoreError
from fuserank.store.tables import GENERATIONS

State = Literal["building", "ready", "active", "retired"]


@dataclass(frozen=True)
class Generation:
    """One generation."""

    id: str
    folder: str
    base_seq: int  # changes up to here are in its files
    state: State
    activated_at: int | None = None  # ms since 1970


def put(connection: sa.Connection, generation: Generation) -> None:
    """Insert or update; `activated_at` is set by `activate` alone."""
    row = {"id": generation.id, "folder": generation.folder, "base_seq": generation.base_seq}
    row |= {"state": generation.state, "created": time.time_ns() // 1_000_000}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(GENERATIONS)
    changed = {name: statement.excluded[name] for name in ("folder", "base_seq", "state")}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), row)


def activate(connection: sa.Connection, identity: str) -> None:
    """The active one is retired and this one takes its place, in one step.

    Raises:
        StoreError: it is not registered.
    """
    connection.execute(
        sa.update(GENERATIONS)
        .where(GENERATIONS.c.state == "active", GENERATIONS.c.id != identity)
        .values(state="retired")
    )
    now = time.time_ns() // 1_000_000
    change = sa.update(GENERATIONS).where(GENERATIONS.c.id == identity).values(state="active", activated_at=now)
    if connection.execute(change).rowcount == 0:
        raise StoreError(f"there is no generation {identity!r} in the database.", "GET /v1/generations lists them.")


def read(connection: sa.Connection) -> list[Generation]:
    """Oldest first."""
    columns = [GENERATIONS.c[name] for name in ("id", "folder", "base_seq", "state", "activated_at")]
    query = sa.select(*columns).order_by(GENERATIONS.c.created, GENERATIONS.c.id)
    return [Generation(*row) for row in connection.execute(query)]
