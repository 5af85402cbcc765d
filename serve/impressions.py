"""Impressions on their way to the store: written in the background, never delaying an answer, awaited at shutdown."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from serve import metrics

log = logging.getLogger("fuserank.serve")


class ImpressionLog:
    """`add` returns at once; one task at a time sends what has gathered."""

    def __init__(
        self,
        send: Callable[[list[dict[str, Any]]], Awaitable[Any]],
        capacity: int = 10_000,
        retry_seconds: float = 0.5,
    ):
        """
        Args:
            send: writes a list of impressions durably (store.AddResult), or raises.
            capacity: impressions that may wait; the oldest give way (and are counted in the log).
            retry_seconds: pause after a failed write.
        """
        self._send = send
        self._waiting: deque[dict[str, Any]] = deque()
        self._capacity = capacity
        self._retry_seconds = retry_seconds
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.dropped = 0

    def add(self, impression: dict[str, Any]) -> None:
        """Queue one impression (IMPRESSION fields)."""
        if len(self._waiting) >= self._capacity:
            self._waiting.popleft()
            self.dropped += 1
            metrics.record("fuserank_impressions_lost_total")
            if self.dropped % 1000 == 1:
                log.error("the store does not take impressions; %d lost so far", self.dropped)
        self._waiting.append(impression)
        metrics.record("fuserank_impressions_waiting", len(self._waiting))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), 500))]
            try:
                result = await self._send(group)
                metrics.record("fuserank_impressions_waiting", len(self._waiting))
                if result.rejected:
                    log.error(
                        "%d impressions refused, the first: %s", len(result.rejected), result.rejected[0]["reason"]
                    )
            except Exception:
                log.warning("impressions could not be written", exc_info=True)
                if self._closing:
                    self.dropped += len(group) + len(self._waiting)
                    metrics.record("fuserank_impressions_lost_total", len(group) + len(self._waiting))
                    log.error("%d impressions lost at shutdown", self.dropped)
                    return
                self._waiting.extendleft(reversed(group))
                await asyncio.sleep(self._retry_seconds)

    async def close(self) -> None:
        """Write what waits; with the store gone, one last try."""
        self._closing = True
        if self._task is not None:
            await self._task
