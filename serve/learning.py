"""Keeps what live policies learn up to date, in a thread of the feedback deployment. Reads and writes the store."""

import logging
import threading

from fuserank import config
from fuserank.errors import StoreError
from fuserank.feedback.learner import Learner
from fuserank.store.database import Database
from serve import metrics

log = logging.getLogger("fuserank.serve")
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0


class Learning:
    """Learns soon after `wake`, and looks by itself twice a second for what other processes have stored."""

    def __init__(self, database: Database, settings: config.Policy):
        """
        Args:
            settings: with `online`.
        """
        assert settings.online is not None
        self._learner = Learner(database, settings.reward, settings.online.looked_at)
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._learn, name="learner", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to learn from."""
        self._woken.set()

    def stop(self) -> None:
        """Finish the pass under way; what is left is learnt by the next learner."""
        self._stopped.set()
        self._woken.set()
        self._thread.join()

    def _learn(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(POLL_SECONDS)
            self._woken.clear()
            try:
                while not self._stopped.is_set() and (count := self._learner.learn()):
                    metrics.record("fuserank_learnt_total", count)
            except StoreError as error:
                log.warning("policies cannot learn now: %s", error)
                self._stopped.wait(RETRY_SECONDS)
            except Exception:
                log.exception("policies could not learn")
                self._stopped.wait(RETRY_SECONDS)
