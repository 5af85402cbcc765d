"""What one replica holds of each generation: of the one that answers, of one that is being made ready, and for a while
of the one before. Reads the database's generations; tells it how far this replica is.

A request names the generation that answers it, and every deployment answers from that one: a switch loses no request,
and no request mixes two.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from fuserank.errors import FuserankError, StoreError
from fuserank.store.database import Database
from fuserank.store.generations import Generation, Part
from serve import metrics

log = logging.getLogger("fuserank.serve")
T = TypeVar("T")
IDLE_SECONDS = 1.0  # between looks at the database
BUSY_SECONDS = 0.1  # the same while a generation is made ready
REPORT_SECONDS = 1.0  # between two reports of the same
DRAIN_SECONDS = 70.0  # a request may take a minute; then its generation goes


def follow(
    look: Callable[[], bool], stopped: threading.Event, idle: float = IDLE_SECONDS, what: str = "generations"
) -> None:
    """Look again and again, more often while `look` says that something is being made ready; failures are logged."""
    busy = False
    while not stopped.wait(BUSY_SECONDS if busy else idle):
        try:
            busy = look()
        except StoreError as error:
            log.warning("the %s cannot be read: %s", what, error)
            busy = False
        except Exception:
            log.exception("the %s could not be followed", what)
            busy = False


class Held(Generic[T]):
    """Generation id → what this replica has opened of it. `active` is the id of the one that answers."""

    def __init__(
        self,
        deployment: str,
        first: Path,
        open: Callable[[Path], T],
        database: Database | None = None,
        *,
        close: Callable[[T], None] = lambda part: None,
        ready: Callable[[T], bool] = lambda part: True,
    ):
        """Opens what answers now, and what is being made ready.

        Args:
            first: folder of the generation to answer from where the database names none.
            open: opens a generation's folder; raises FuserankError for one that cannot be had.
            database: None for a replica that keeps the first generation.
            close: lets go of what was opened; ready: whether it has all that the live changes ask for.

        Raises:
            FuserankError: what answers now cannot be opened. StoreError: the database failed.
        """
        self.deployment, self.active = deployment, first.name
        self._open, self._close, self._ready, self._database = open, close, ready, database
        self._parts: dict[str, T] = {}
        self._replica = uuid.uuid4().hex
        self._unwanted: dict[str, float] = {}  # id → since when nobody has to answer from it
        self._refused: dict[str, tuple[int | None, str]] = {}  # id → when it was asked for, and why it cannot be had
        self._reported: dict[str, tuple[bool, str | None, float]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=follow, args=(self._look, self._stopped), name="generations", daemon=True
        )
        rows = database.generations() if database else []
        active = next((row for row in rows if row.state == "active"), None)
        folder = Path(active.folder) if active else first
        self._parts[folder.name] = open(folder)
        self._switch(folder.name)
        if database is not None:
            self._look()
            self._thread.start()

    def get(self, identity: str) -> T | None:
        """What is held of a generation; None: nothing, or not yet."""
        return self._parts.get(identity)

    def __contains__(self, identity: str) -> bool:
        return identity in self._parts

    def current(self) -> T:
        """What answers now."""
        return self._parts[self.active]

    def all(self) -> list[T]:
        """All that is held."""
        return list(self._parts.values())

    def stop(self) -> None:
        """Follow no longer and let go of everything."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        for part in self._parts.values():
            self._close(part)

    def _look(self) -> bool:
        """Do what the database asks for; whether a generation is being made ready."""
        assert self._database is not None
        rows = self._database.generations()
        wanted = [row for row in rows if row.state in ("active", "warming")]
        for row in wanted:
            self._unwanted.pop(row.id, None)
            if row.id not in self._parts and self._refused.get(row.id, (0, ""))[0] != row.asked_at:
                self._fetch(row)
            if row.state == "active" and row.id in self._parts and row.id != self.active:
                self._switch(row.id)
            if row.state == "warming":
                self._report(row.id)
        self._drain({row.id for row in wanted} | {self.active})
        return any(row.state == "warming" for row in wanted)

    def _fetch(self, row: Generation) -> None:
        begin = time.monotonic()
        try:
            self._parts[row.id] = self._open(Path(row.folder))
        except FuserankError as error:
            self._refused[row.id] = (row.asked_at, error.message)
            log.warning("generation %s cannot be opened: %s", row.id, error.message)
            return
        except Exception as error:
            self._refused[row.id] = (
                row.asked_at,
                f"{type(error).__name__} in the {self.deployment}; its log says more",
            )
            log.exception("generation %s cannot be opened", row.id)
            return
        self._refused.pop(row.id, None)
        log.info("holds generation %s after %.1f s", row.id, time.monotonic() - begin)

    def _switch(self, identity: str) -> None:
        if identity != self.active:
            metrics.record("fuserank_generation_info", 0, deployment=self.deployment, generation=self.active)
        self.active = identity
        metrics.record("fuserank_generation_info", 1, deployment=self.deployment, generation=identity)

    def _report(self, identity: str) -> None:
        assert self._database is not None
        ready = identity in self._parts and self._ready(self._parts[identity])
        reason = None if identity in self._parts else self._refused.get(identity, (None, None))[1]
        was_ready, was, at = self._reported.get(identity, (None, None, 0.0))
        if (ready, reason) != (was_ready, was) or time.monotonic() - at > REPORT_SECONDS:
            self._database.report_part(Part(identity, self.deployment, self._replica, ready, reason))
            self._reported[identity] = (ready, reason, time.monotonic())

    def _drain(self, wanted: set[str]) -> None:
        for identity in [name for name in self._parts if name not in wanted]:
            since = self._unwanted.setdefault(identity, time.monotonic())
            if time.monotonic() - since > DRAIN_SECONDS:
                del self._unwanted[identity]
                self._close(self._parts.pop(identity))
                log.info("let go of generation %s", identity)
