"""Follows the change log in a thread of its own, so that a replica shows every change soon after it was made and, after
a restart, all it has missed. Reads the store."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from fuserank.errors import StoreError
from fuserank.store.changes import Change
from fuserank.store.database import Database
from serve import metrics

log = logging.getLogger("fuserank.serve")
POLL_SECONDS = 0.1
RETRY_SECONDS = 1.0  # while the database does not answer
PAGE = 500  # changes taken at a time
CAUGHT_UP_SECONDS = 2.0


class Follower:
    """Hands the changes after a number to `take`, in order, each once."""

    def __init__(
        self,
        database: Database,
        after: int,
        take: Callable[[Sequence[Change]], None],
        generation: str | None = None,
        poll_seconds: float = POLL_SECONDS,
        name: str = "gateway",
    ):
        """
        Args:
            after: the last change that is known already.
            take: must be done with the changes when it returns.
            name: of the deployment, for its metrics.
            generation: wait for each product's vectors in this generation; None: do not ask for vectors.
        """
        self.seq = after  # the last change taken
        self._database, self._take, self._generation = database, take, generation
        self._poll_seconds = poll_seconds
        self._name, self._known_at = name, time.time()  # when all that is shown was last all there was
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="change-log", daemon=True)

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; waits for the change under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def catch_up(self) -> int:
        """Take all there is now; the number of the last change taken. Raises StoreError."""
        with self._lock:
            while self._page():
                continue
            return self.seq

    def caught_up(self) -> bool:
        """Whether what it has not taken is younger than two seconds."""
        return time.time() - self._known_at < CAUGHT_UP_SECONDS

    def _page(self) -> bool:
        """Whether there may be more."""
        changes = self._database.read_changes(self.seq, self._generation or "", PAGE)
        ready = changes
        if self._generation is not None:
            unknown = [i for i, change in enumerate(changes) if change.kind != "delete" and not change.encoded]
            ready = changes[: unknown[0]] if unknown else changes
        if ready:
            self._take(ready)
            self.seq = ready[-1].seq
        late = changes[len(ready) :]
        self._known_at = late[0].timestamp / 1000 if late else time.time()
        self._measure()
        return len(ready) == PAGE

    def _measure(self) -> None:
        metrics.record("fuserank_index_seq", self.seq, deployment=self._name)
        lag = max(0.0, time.time() - self._known_at)
        metrics.record("fuserank_index_lag_seconds", lag, deployment=self._name)

    def _follow(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            try:
                self.catch_up()
            except StoreError as error:
                log.warning("the change log cannot be read: %s", error)
                self._measure()
                self._stopped.wait(RETRY_SECONDS)
            except Exception:
                log.exception("a change could not be applied")
                self._measure()
                self._stopped.wait(RETRY_SECONDS)
