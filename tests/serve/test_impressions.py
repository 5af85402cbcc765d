"""Impressions never delay an answer, survive a store that fails for a while, and are written at shutdown."""

import asyncio
from typing import Any

from fuserank.store.database import AddResult
from serve.impressions import ImpressionLog


class Store:
    """Takes impressions after failing `failures` times."""

    def __init__(self, failures: int = 0):
        self.failures, self.rows, self.calls = failures, [], 0

    async def __call__(self, rows: list[dict[str, Any]]) -> AddResult:
        self.calls += 1
        await asyncio.sleep(0.005)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("gone")
        self.rows += [row["n"] for row in rows]
        return AddResult(len(rows), 0)


def test_all_are_written_in_groups_and_awaited_at_the_end():
    async def scenario():
        store = Store()
        log = ImpressionLog(store)
        for n in range(50):
            log.add({"n": n})
        assert store.rows == []  # adding did not wait
        await log.close()
        assert store.rows == list(range(50))
        assert store.calls <= 2

    asyncio.run(scenario())


def test_a_store_that_fails_for_a_while_loses_none_and_keeps_the_order():
    async def scenario():
        store = Store(failures=2)
        log = ImpressionLog(store, retry_seconds=0.01)
        for n in range(10):
            log.add({"n": n})
        await asyncio.sleep(0.2)
        assert store.rows == list(range(10))
        assert log.dropped == 0

    asyncio.run(scenario())


def test_what_waits_is_bounded_and_shutdown_does_not_hang_on_a_dead_store():
    async def scenario():
        store = Store(failures=1000)
        log = ImpressionLog(store, capacity=5, retry_seconds=0.01)
        for n in range(20):
            log.add({"n": n})
        assert log.dropped == 15
        await asyncio.wait_for(log.close(), 2)
        assert log.dropped == 20

    asyncio.run(scenario())
