"""Impressions on their way to the store: on this machine's disk before the answer leaves, in the store soon after.

Writes the spool (spool.py) and, through the feedback deployment, the store. While the store is locked or gone the spool
grows up to its limit; when the store answers again, it is emptied in order. What it holds when a process ends, however
it ends, is taken over by the next gateway that looks at the folder. Impressions are idempotent by request_id, so that
handing one over twice does no harm.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from fuserank.store.validate import RowError, impression_row
from serve import metrics
from serve.spool import Spool

log = logging.getLogger("fuserank.serve")
WAIT_SECONDS = 0.25  # for a slow disk; then the answer leaves without the promise
WAITING = 10_000  # impressions that may wait for a slow disk
GATHER_SECONDS = 0.05  # between looks at the spool, so that one commit of the store holds many


class ImpressionLog:
    """`add` says whether an impression is safe; one task hands over to the store."""

    def __init__(
        self,
        send: Callable[[list[dict[str, Any]]], Awaitable[Any]],
        spool: Spool,
        retry_seconds: float = 0.5,
        adopt_seconds: float = 30.0,
    ):
        """
        Args:
            send: writes a list of impressions durably (store.AddResult), or raises.
            spool: where they wait; closed by `close`.
            retry_seconds: pause after a failed write to the store.
            adopt_seconds: between looks for what other gateways left when they ended.
        """
        self._send, self._spool = send, spool
        self._retry_seconds, self._adopt_seconds = retry_seconds, adopt_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._pending: list[tuple[dict[str, Any], asyncio.Future[bool]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._closing = self._closed = False
        self._wake = asyncio.Event()  # there is something to hand over, or an end
        self._adopted = time.monotonic()
        self.lost = 0

    async def add(self, impression: dict[str, Any], seconds: float = WAIT_SECONDS) -> bool:
        """Keep one impression (IMPRESSION fields). True: it is on disk, flushed, and will reach the store.

        Args:
            seconds: how long to wait for the disk. False after that may come too early: it may still be kept.
        """
        try:
            row = impression | {"timestamp": _written(impression.get("timestamp"))}
            impression_row(row, time.time_ns() // 1_000_000)
        except RowError as reason:
            log.error("an impression is refused: %s", reason)
            self._lose(1)
            return False
        if len(self._pending) >= WAITING:
            self._lose(1)
            return False
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[bool] = loop.create_future()
        self._pending.append((row, kept))
        if self._flushing is None or self._flushing.done():
            self._flushing = loop.create_task(self._flush())
        await asyncio.wait([kept], timeout=seconds)
        return kept.done() and kept.result()

    def start(self) -> None:
        """Begin to hand over what is there already. Called on the loop."""
        if self._draining is None or self._draining.done():
            self._closing, self._wake = False, asyncio.Event()  # of this loop
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def close(self) -> None:
        """Hand over what is there; what the store does not take now stays on disk. `start` begins anew."""
        if self._closed:
            return
        if self._flushing is not None:
            await self._flushing
        self.start()
        self._closing = True
        self._wake.set()
        assert self._draining is not None
        await self._draining
        if self._spool.lines:
            log.warning("%d impressions stay in the spool; the next gateway hands them over", self._spool.lines)
        await self._run(self._spool.close)
        self._closed = True

    async def _flush(self) -> None:
        """What gathers while the disk writes goes to it together next."""
        while self._pending:
            group, self._pending = self._pending, []
            try:
                kept = await self._run(self._spool.append, [row for row, _ in group])
            except Exception:
                log.exception("the spool failed")
                kept = [False] * len(group)
            for (_, future), safe in zip(group, kept, strict=True):
                future.set_result(safe)
            if not all(kept):
                self._lose(kept.count(False))
            self._tell()
            self._wake.set()
            self.start()

    async def _drain(self) -> None:
        """Hand over what comes; at the end once more."""
        if self._closed:
            await self._run(self._spool.open)
            self._closed = False
        while not self._closing:
            if self._spool.lines == 0:
                await self._pause(self._adopt_seconds)
            if time.monotonic() - self._adopted >= self._adopt_seconds:
                self._adopted = time.monotonic()
                await self._run(self._spool.adopt)
            await self._pause(GATHER_SECONDS)
            if not await self._hand_over():
                await self._pause(self._retry_seconds)
        await self._hand_over()

    async def _hand_over(self) -> bool:
        """Whether all that was in the spool is in the store now."""
        try:
            while (part := await self._run(self._spool.read)) is not None:
                rows = await asyncio.to_thread(part.rows)
                if rows:
                    result = await self._send(rows)
                    if result.rejected:
                        log.error("%d impressions refused: %s", len(result.rejected), result.rejected[0]["reason"])
                await self._run(self._spool.done, part)
                self._tell()
        except Exception as error:
            log.warning("impressions wait in the spool: %s", error)
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        """Until the time is over or, with nothing to hand over, something comes; no longer than until the end."""
        idle, until = self._spool.lines == 0, time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0 and not (idle and self._spool.lines):
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _lose(self, count: int) -> None:
        if self.lost == 0 or self.lost // 1000 != (self.lost + count) // 1000:
            log.error("impressions cannot be kept; %d lost so far", self.lost + count)
        self.lost += count
        metrics.record("fuserank_impressions_lost_total", count)

    def _tell(self) -> None:
        metrics.record("fuserank_impressions_waiting", self._spool.lines)
        metrics.record("fuserank_spool_bytes", self._spool.bytes)


def _written(timestamp: Any) -> Any:
    return timestamp.isoformat() if isinstance(timestamp, datetime) else timestamp
