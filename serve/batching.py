"""Gathers concurrent requests into micro-batches: the busier the chain, the larger they are; an idle one adds no wait.

A batch leaves at once when none is in flight. While one is, requests gather; a further batch leaves when it is full, or
as large as the smallest in flight and there is room for it, or when a batch comes home. Those that have waited as long
as they can leave beside what is in flight, up to twice as many batches, so that a slow batch of patient requests does
not keep hurried ones from being answered. Who would wait longer than they can is refused at once: an answer that comes
too late costs as much as one in time.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    future: "asyncio.Future[Answer]"
    due: float  # in the loop's time


SMOOTH = 0.2  # share of the latest batch in what is expected of the next
SAFE = 0.7  # of the time that an item has may be spent waiting, by what is expected


class QueueFullError(Exception):
    """More requests are waiting than the queue holds, or than are answered in time."""


class Batcher(Generic[Item, Answer]):
    """Async micro-batcher: `await submit(item)` gives that item's answer."""

    def __init__(
        self,
        run: Callable[[list[Item], list[asyncio.Future[Answer]]], Awaitable[Sequence[Answer]]],
        max_batch: int,
        queue: int,
        max_in_flight: int = 2,
    ):
        """
        Args:
            run: a batch → one answer per item, in order. If it raises, every item of that batch gets the error. The
                futures are those that the items' senders wait for: an answer set there does not wait for its
                neighbours, and one that is done is waited for no longer.
            max_batch: items in one batch.
            queue: items that may wait; more are refused.
            max_in_flight: batches on their way at a time.
        """
        self._run = run
        self._max_batch = max_batch
        self._queue = queue
        self._max_in_flight = max_in_flight
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._in_flight: dict[asyncio.Task[None], int] = {}
        self._scheduled = False
        self._pace = self._duration = 0.0  # seconds from one item's end to the next's while others wait; of a batch
        self._ended: float | None = None  # when the last batch came home, if something has waited ever since
        self.sizes: deque[int] = deque(maxlen=1000)  # of the latest batches

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return len(self._waiting)

    @property
    def wait(self) -> float:
        """Seconds that an item which came now should take; 0 where none would wait before it."""
        return len(self._waiting) * self._pace + self._duration if self._waiting else 0.0

    async def submit(self, item: Item, patience: float | None = None, within: float = math.inf) -> Answer:
        """One item's answer. A cancelled caller's item is dropped if its batch has not left.

        Args:
            patience: seconds after which it leaves although as many batches are in flight as should be; None: never.
            within: seconds after which its answer is worth nothing.

        Raises:
            QueueFullError: `queue` items are waiting already, or `wait` takes too much of `within`.
        """
        if len(self._waiting) >= self._queue or self.wait > SAFE * within:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        due = math.inf if patience is None else loop.time() + patience
        mine = _Waiting[Item, Answer](item, loop.create_future(), due)
        self._waiting.append(mine)
        if (
            not self._scheduled
        ):  # at the end of this turn of the loop, so that requests that arrived together leave together
            self._scheduled = True
            loop.call_soon(self._flush)
        alarm = None if patience is None else loop.call_at(due, self._flush)
        try:
            return await mine.future
        except asyncio.CancelledError:
            self._waiting = deque(one for one in self._waiting if one is not mine)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def _may_leave(self) -> bool:
        if not self._waiting or len(self._in_flight) >= self._max_in_flight:
            return False
        smallest = min(self._in_flight.values(), default=0)
        return len(self._waiting) >= min(self._max_batch, smallest)

    def _flush(self) -> None:
        self._scheduled = False
        while self._may_leave():
            count = min(self._max_batch, len(self._waiting))
            self._leave([self._waiting.popleft() for _ in range(count)])
        now = asyncio.get_running_loop().time()
        if len(self._in_flight) < 2 * self._max_in_flight and (
            overdue := [one for one in self._waiting if one.due <= now]
        ):
            batch = overdue[: self._max_batch]
            self._waiting = deque(one for one in self._waiting if one not in batch)
            self._leave(batch)

    def _leave(self, batch: "list[_Waiting[Item, Answer]]") -> None:
        self.sizes.append(len(batch))
        loop = asyncio.get_running_loop()
        task, left = loop.create_task(self._send(batch)), loop.time()
        self._in_flight[task] = len(batch)
        task.add_done_callback(lambda task: self._home(task, left))

    def _home(self, task: asyncio.Task[None], left: float) -> None:
        count, now = self._in_flight.pop(task), asyncio.get_running_loop().time()
        self._duration += SMOOTH * (now - left - self._duration)
        if self._ended is not None:
            self._pace += SMOOTH * ((now - self._ended) / count - self._pace)
        self._ended = now if self._waiting else None
        self._flush()

    async def _send(self, batch: "list[_Waiting[Item, Answer]]") -> None:
        futures = [one.future for one in batch]
        try:
            answers = await self._run([one.item for one in batch], futures)
            if len(answers) != len(batch):
                raise RuntimeError(f"a batch of {len(batch)} came back with {len(answers)} answers")
        except BaseException as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else RuntimeError("batch cancelled"))
            if not isinstance(error, Exception):
                raise
            return
        for future, result in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(result)

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        while self._waiting or self._in_flight:
            if self._in_flight:
                await asyncio.wait(list(self._in_flight))
            else:
                await asyncio.sleep(0)
