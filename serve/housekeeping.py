"""What the service does by itself about data that has to go: erased users in the run's files, rows older than the
config keeps. In a thread of the feedback deployment. Reads and writes the store; rewrites Parquet files of the run."""

import logging
import threading
import time
from pathlib import Path

from fuserank.errors import StoreError
from fuserank.feedback.erasure import scrub
from fuserank.store.database import Database

log = logging.getLogger("fuserank.serve")
LOOK_SECONDS = 1.0
PRUNE_SECONDS = 60.0
PRUNED_AT_ONCE = 2000  # rows of one commit, so that events never wait long for it
DAY_MS = 86_400_000


class Housekeeping:
    """Looks once a second for erased users, once a minute for what is too old."""

    def __init__(
        self,
        database: Database,
        run: Path | None = None,
        retention_days: float | None = None,
        look_seconds: float = LOOK_SECONDS,
    ):
        """
        Args:
            run: the run's folder; None: no files to take anybody out of.
            retention_days: events and impressions are deleted so long after they were stored; None: never.
        """
        self._database, self._run, self._days = database, run, retention_days
        self._seconds, self._pruned = look_seconds, -PRUNE_SECONDS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what is left is done by the next one."""
        self._stopped.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._scrub()
                if self._days is not None and time.monotonic() - self._pruned > PRUNE_SECONDS:
                    self._prune(self._days)
            except (StoreError, OSError) as error:
                log.warning("housekeeping has to wait: %s", error)
            except Exception:
                log.exception("housekeeping failed")

    def _scrub(self) -> None:
        waiting = self._database.unscrubbed()
        if not waiting:
            return
        begin = time.monotonic()
        changed = scrub(self._run, dict(waiting)) if self._run is not None else []
        if self._database.truncate_log():
            self._database.mark_scrubbed(waiting)
            log.info("took %d users out of %d files in %.1f s", len(waiting), len(changed), time.monotonic() - begin)

    def _prune(self, days: float) -> None:
        before, count = time.time_ns() // 1_000_000 - round(days * DAY_MS), 0
        while not self._stopped.is_set() and (gone := self._database.prune(before, PRUNED_AT_ONCE)):
            count += gone
        self._pruned = time.monotonic()
        if count:
            log.info("deleted %d events and impressions older than %g days", count, days)
