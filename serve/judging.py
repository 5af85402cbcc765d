"""Looks at live answers again and again, in a thread of the feedback deployment: whether a canary or a new generation
earns more or less than what answered before. Reads and writes the store.
"""

import functools
import logging
import threading
from pathlib import Path

from fuserank import config
from fuserank.errors import StoreError
from fuserank.feedback.canary import CanaryJudge
from fuserank.feedback.generations import GenerationJudge
from fuserank.store.database import Database
from serve.generations import roll_back

log = logging.getLogger("fuserank.serve")


class Judging:
    """Looks every `policy.watch_seconds`. All it goes by is in the store, so another process goes on where it ends."""

    def __init__(self, database: Database, settings: config.Policy, index: Path | None):
        """
        Args:
            index: folder of the generations; None: there is none to go back to.
        """
        self._judges: list[CanaryJudge | GenerationJudge] = []
        if settings.online is not None:
            self._judges.append(CanaryJudge(database, settings))
        if settings.rollback and index is not None:
            self._judges.append(GenerationJudge(database, settings, functools.partial(roll_back, database, index)))
        self._seconds, self._stopped = settings.watch_seconds, threading.Event()
        self._thread = threading.Thread(target=self._judge, name="judging", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the look under way."""
        self._stopped.set()
        self._thread.join()

    def _judge(self) -> None:
        while self._judges and not self._stopped.wait(self._seconds):
            for judge in self._judges:
                try:
                    judge.look()
                except StoreError as error:
                    log.warning("live answers cannot be judged now: %s", error)
                except Exception:
                    log.exception("live answers could not be judged")
