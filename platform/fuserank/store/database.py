"""The one database: events, impressions and the live catalogue, in SQLite (embedded) or PostgreSQL (a cluster).

    Database("sqlite:////data/fuserank.db").add_events([{"type": "click", "product_id": "p1", "user_id": "u1"}])

Everything acknowledged is on disk. Threads may share one Database; processes open their own.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from fuserank.config import Experiment
from fuserank.store import changes, erasures, events, generations, impressions, keys, vectors
from fuserank.store.decisions import Decision
from fuserank.store.engine import truncate_log, unreachable
from fuserank.store.policy_database import PolicyDatabase

ERASED_SECONDS = 1.0  # how long another process's erasure may stay unknown here


@dataclass(frozen=True)
class AddResult:
    """What became of the rows handed over."""

    accepted: int  # new, and durable
    duplicates: int  # the id was there already
    rejected: list[dict[str, Any]] = field(default_factory=list)  # {"index": place in the request, "reason": text}


def run_database(run: str | Path) -> tuple[Path, str]:
    """The file and the URL of a run's embedded database: `<run>/store/fuserank.db`."""
    file = Path(run).absolute() / "store" / "fuserank.db"
    return file, sa.URL.create("sqlite", database=str(file)).render_as_string()


def store_url(experiment: Experiment) -> str:
    """Of the run's database: the config's, else that of the embedded one."""
    return experiment.store.url or run_database(experiment.run)[1]


def kept_database(experiment: Experiment) -> "Database | None":
    """The run's database, None where nothing was served yet. Raises StoreError."""
    if experiment.store.url is None and not run_database(experiment.run)[0].is_file():
        return None
    return Database(store_url(experiment))


class Database(PolicyDatabase):
    """Opens the database, migrating it if needed, and starts its writer."""

    def __init__(self, url: str):
        """
        Raises:
            StoreError: malformed URL, missing driver, unreachable, or settings that are not durable.
        """
        super().__init__(url)
        self._erased: dict[str, int] = {}  # as the database had it a moment ago, and whoever is being erased here
        self._erased_read, self._erasing = 0.0, threading.Lock()

    def add_events(self, rows: list[dict[str, Any]]) -> AddResult:
        """Store events (records.schema.EVENT; timestamp as ISO 8601 or ms, now if missing); durable on return.

        A bad row is rejected with its reason and holds up no other. Idempotent by event_id; an event without one gets
        an id made from its content (random if it has no timestamp).

        Raises:
            StoreError: the database failed; nothing of this call was stored.
        """
        return self._added(events.add, rows)

    def add_impressions(self, rows: list[dict[str, Any]]) -> AddResult:
        """Store impressions (records.schema.IMPRESSION); as `add_events`, idempotent by request_id."""
        return self._added(impressions.add, rows)

    def recent_events(self, user_id: str, limit: int, types: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
        """The user's last `limit` events (of these types, or all), oldest first; timestamps in ms since 1970.

        Raises:
            StoreError: the database failed.
        """
        return self._read(lambda connection: events.recent(connection, user_id, limit, types))

    def shown(self, user_id: str, limit: int, types: Sequence[str]) -> list[impressions.Shown]:
        """The user's last `limit` answers, oldest first, with what was turned to by events of these types.

        Raises:
            StoreError: the database failed.
        """
        return self._read(lambda connection: impressions.shown(connection, user_id, limit, types))

    def event_marks(self, users: Sequence[str]) -> dict[str, tuple[int, int]]:
        """What changes with each user's events: how many there are, and the time of the last; nobody without any."""
        return self._read(lambda connection: events.marks(connection, users))

    def read_events(self, since: int = 0) -> pa.Table:
        """Events that arrived at or after `since` (ms since 1970), ordered by their own time; schema EVENT."""
        return self._read(lambda connection: events.read(connection, since))

    def read_impressions(self, since: int = 0) -> pa.Table:
        """Impressions stored at or after `since` (ms since 1970), ordered by time; schema IMPRESSION."""
        return self._read(lambda connection: impressions.read(connection, since))

    def logged_queries(self, limit: int) -> list[tuple[str, int]]:
        """The latest `limit` different texts that were searched for, the latest first, with how often."""
        return self._read(lambda connection: impressions.queries(connection, limit))

    def add_changes(
        self, edits: Sequence[changes.Edit], base: Callable[[str], changes.Record | None]
    ) -> list[changes.Outcome]:
        """Change the catalogue, in this order; durable on return. One outcome an edit.

        Args:
            base: a product as it was imported, for products that no change has touched; called from another thread.

        Raises:
            StoreError: the database failed; nothing of this call was stored.
        """
        now = time.time_ns() // 1_000_000
        return self._writer.run(lambda connection: changes.write(connection, edits, base, now), len(edits))

    def read_changes(self, after: int, generation: str = "", limit: int = 1000) -> list[changes.Change]:
        """The changes that follow number `after`, in order, with their vectors in this generation."""
        return self._read(lambda connection: changes.read(connection, after, generation, limit))

    def last_change(self) -> int:
        """The number of the last change, 0 without any."""
        return self._read(changes.latest)

    def records_before(self, found: Sequence[changes.Change]) -> dict[int, tuple[bool, changes.Record | None]]:
        """seq of each change → whether an earlier change touched its product, and the record that one left."""
        return self._read(lambda connection: changes.before(connection, found))

    def products(self, product_ids: Sequence[str]) -> dict[str, changes.Record | None]:
        """The products among these that were ever changed, as they are now; None where deleted."""
        return self._read(lambda connection: changes.products(connection, product_ids))

    def add_vectors(self, generation: str, rows: Mapping[int, tuple[str, changes.StoredVectors | None]]) -> None:
        """Store what a generation makes of changes: seq → (product_id, vectors, or None for "as before"); durable."""
        vectors.add(self._writer, generation, rows)

    def unencoded_change(self, generation: str, after: int = 0) -> int | None:
        """The first change above `after` that the generation has no row of vectors for, None if there is none."""
        return self._read(lambda connection: vectors.unencoded(connection, generation, after))

    def latest_vectors(
        self, generation: str, product_ids: Sequence[str], before: int
    ) -> dict[str, changes.StoredVectors]:
        """The vectors each product had before the change of that number, where a change gave it any."""
        return self._read(lambda connection: vectors.latest(connection, generation, product_ids, before))

    def add_generation(self, identity: str, folder: str, base_seq: int, state: generations.State) -> None:
        """Register a generation, or change what is known of it."""
        row = generations.Generation(identity, folder, base_seq, state)
        self._writer.run(lambda connection: generations.put(connection, row))

    def register_generation(self, identity: str, folder: str, base_seq: int) -> None:
        """Register a generation as ready; the state of one that is known already stays."""
        row = generations.Generation(identity, folder, base_seq, "ready")
        self._writer.run(lambda connection: generations.register(connection, row))

    def warm_generation(self, identity: str) -> None:
        """Ask the service to make a generation ready and activate it. Raises StoreError for an unknown one."""
        self._writer.run(lambda connection: generations.warm(connection, identity))

    def refuse_generation(self, identity: str, reason: str) -> None:
        """Say why a generation that was asked for cannot be had."""
        self._writer.run(lambda connection: generations.refuse(connection, identity, reason))

    def report_part(self, part: generations.Part) -> None:
        """Say how far a replica is with a generation."""
        self._writer.run(lambda connection: generations.report(connection, part))

    def generation_parts(self, identity: str) -> list[generations.Part]:
        """What replicas last said of a generation."""
        return self._read(lambda connection: generations.parts(connection, identity))

    def forget_generations(self, kept: Sequence[str]) -> None:
        """Delete rows and vectors of generations that are not among these and neither active nor asked for."""
        self._writer.run(lambda connection: generations.forget(connection, kept))

    def activate_generation(self, identity: str) -> None:
        """Make a generation the active one; the one before it is retired. Raises StoreError for an unknown one."""
        self._writer.run(lambda connection: generations.activate(connection, identity))

    def roll_back_generation(self, decision: Decision) -> bool:
        """Ask for the incumbent of a decision against the active generation; False where somebody was quicker."""
        return self._writer.run(lambda connection: generations.roll_back(connection, decision))

    def generations(self) -> list[generations.Generation]:
        """All registered generations, oldest first."""
        return self._read(generations.read)

    def erase_user(self, user_id: str) -> erasures.Erased:
        """Delete all that is stored of a user; on return it is gone, and what arrives late is refused.

        Raises:
            StoreError: the database failed; nothing was erased.
        """
        with self._erasing:
            self._erased = self._erased | {erasures.digest(user_id): time.time_ns() // 1_000_000}
        erased = self._writer.run(lambda connection: erasures.erase(connection, user_id))
        self._erased_read = 0.0
        self.truncate_log()
        return erased

    def erased_users(self) -> dict[str, int]:
        """Digest of each erased user's id → when (ms)."""
        return self._read(erasures.read)

    def unscrubbed(self) -> list[tuple[str, int]]:
        """(digest, when) of erased users who may still be found in the run's files."""
        return self._read(erasures.unscrubbed)

    def mark_scrubbed(self, done: Sequence[tuple[str, int]]) -> None:
        """The run's files are free of these."""
        self._writer.run(lambda connection: erasures.scrubbed(connection, done))

    def prune(self, before: int, limit: int) -> int:
        """Delete events and impressions stored before a moment (ms), at most `limit` of each; how many there were."""
        return self._writer.run(lambda connection: erasures.prune(connection, before, limit), 2 * limit)

    def truncate_log(self) -> bool:
        """Let go of what was deleted in SQLite's write-ahead log; False while somebody reads an older state."""
        try:
            return truncate_log(self._engine)
        except SQLAlchemyError as error:
            raise unreachable(self._engine.url, error) from error

    def add_key(self, key: keys.ApiKey) -> None:
        """Store a new API key; durable on return."""
        self._writer.run(lambda connection: keys.add(connection, key))

    def rotate_key(self, old: str, new: keys.ApiKey, until: int) -> None:
        """Store a key in the place of another, which ends at `until` (ms). Raises InputError for an unknown one."""
        self._writer.run(lambda connection: keys.rotate(connection, old, new, until))

    def revoke_key(self, identity: str) -> None:
        """End an API key now. Raises InputError for an unknown one."""
        self._writer.run(lambda connection: keys.expire(connection, identity, keys.milliseconds()))

    def api_keys(self) -> list[keys.ApiKey]:
        """All API keys there ever were, oldest first."""
        return self._read(keys.read)

    def _added(self, add: Callable[..., tuple[int, int, list[dict[str, Any]]]], rows: list[Any]) -> AddResult:
        """Store rows, but none of a user who was erased, also if that happens at this moment."""
        with self._erasing:
            if time.monotonic() - self._erased_read > ERASED_SECONDS:
                known, self._erased_read = self._erased | self.erased_users(), time.monotonic()
                self._erased = known if known != self._erased else self._erased
            before = self._erased
        result = AddResult(*add(self._writer, rows, before))
        if self._erased is not before:
            told = {row["user_id"] for row in rows if isinstance(row, dict) and isinstance(row.get("user_id"), str)}
            for user in told:
                if self._erased.get(erasures.digest(user)) != before.get(erasures.digest(user)):
                    self._writer.run(lambda connection, user=user: erasures.erase(connection, user))
        return result
