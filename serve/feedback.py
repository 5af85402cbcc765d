"""Feedback: writes events and impressions, reads users' histories, lets policies learn, judges canaries and new
generations, erases users. Reads and writes the store.

The store gathers calls that wait at the same time into one commit, so each call waits in a thread of its own.
"""

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuserank import config
from fuserank.feedback.history import HISTORY, TYPES
from fuserank.feedback.sequences import POSITIVE
from fuserank.store.database import AddResult, Database
from fuserank.store.erasures import Erased
from serve import watch
from serve.envelope import ANY, Envelope, Result, answer
from serve.housekeeping import Housekeeping
from serve.judging import Judging
from serve.learning import Learning
from serve.messages import Display, HistoryEvent, Past


class Feedback:
    """Called by the gateway only."""

    def __init__(
        self,
        url: str,
        history: int = HISTORY,
        writers: int = 32,
        policy: config.Policy | None = None,
        run: Path | None = None,
        retention_days: float | None = None,
    ):
        """
        Args:
            url: the database, as SQLAlchemy writes it.
            history: events of a user that the recommender is given.
            writers: calls that may share one commit.
            policy: its `online` says whether there is a policy that learns from what is stored, and whose canary is
                judged; its `rollback` whether generations are.
            run: the run's folder, out of whose files erased users are taken, and where the generations are.
            retention_days: how long events and impressions are kept; None: for good.

        Raises:
            StoreError: the database cannot be opened.
        """
        self._database = Database(url)
        self._history = history
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")  # never waits behind a disk flush
        self._housekeeping = Housekeeping(self._database, run, retention_days)
        self._learning = Learning(self._database, policy) if policy is not None and policy.online is not None else None
        self._answers = policy.online.shown if policy is not None and policy.online is not None else 0
        self._judging = Judging(self._database, policy, run and run / "index") if policy is not None else None

    async def add_events(self, events: list[Any]) -> AddResult:
        """Store events; the accepted ones are durable when this returns. Raises StoreError."""
        return self._stored(await self._run(self._writers, self._database.add_events, events))

    async def add_impressions(self, impressions: list[dict[str, Any]]) -> AddResult:
        """Store impressions; durable when this returns. Raises StoreError."""
        return self._stored(await self._run(self._writers, self._database.add_impressions, impressions))

    async def erase(self, user_id: str) -> Erased:
        """Delete all that is stored of a user; gone when this returns. Raises StoreError."""
        return await self._run(self._writers, self._database.erase_user, user_id)

    async def history(self, envelopes: list[Envelope]) -> list[Result]:
        """Payload: a user id. Value: their Past."""
        begin = time.perf_counter()
        results = await self._run(self._reader, answer, envelopes, ANY, self._read)
        if envelopes:
            watch.batch("feedback", envelopes, results, time.perf_counter() - begin)
        return results

    def _read(self, users: list[str]) -> list[Past]:
        return [Past(self._events(user), self._shown(user)) for user in users]

    def _events(self, user: str) -> tuple[HistoryEvent, ...]:
        return tuple(
            HistoryEvent(event["product_id"], event["type"], event["timestamp"] / 1000)
            for event in self._database.recent_events(user, self._history, TYPES)
        )

    def _shown(self, user: str) -> tuple[Display, ...]:
        answers = self._database.shown(user, self._answers, POSITIVE) if self._answers else []
        return tuple(
            Display(product, place, product in answer.turned)
            for answer in answers
            for place, product in enumerate(answer.product_ids)
        )

    def _stored(self, result: AddResult) -> AddResult:
        if self._learning is not None and result.accepted:
            self._learning.wake()
        return result

    async def _run(self, threads: ThreadPoolExecutor, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, functools.partial(work, *args))

    def __del__(self):  # Serve calls it when the replica ends: writes under way are finished
        if (learning := getattr(self, "_learning", None)) is not None:
            learning.stop()
        if (judging := getattr(self, "_judging", None)) is not None:
            judging.stop()
        if (housekeeping := getattr(self, "_housekeeping", None)) is not None:
            housekeeping.stop()
        self._database.close()
