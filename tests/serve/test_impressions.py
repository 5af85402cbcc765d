"""Impressions are on disk before they are acknowledged, and in the store once, whatever becomes of the store."""

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fuserank.store.database import AddResult, Database
from serve.feedback import Feedback
from serve.impressions import ImpressionLog
from serve.spool import Spool


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
        self.rows += [row["request_id"] for row in rows]
        return AddResult(len(rows), 0)


def shown(name: str, **fields: Any) -> dict[str, Any]:
    return {"request_id": name, "kind": "search", "product_ids": ["p1"], "propensities": [1.0]} | fields


PATIENT = 10  # seconds: disks under tests are busy


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_all_are_written_in_groups_and_in_order(tmp_path: Path):
    async def scenario():
        store = Store()
        log = ImpressionLog(store, Spool(tmp_path, 1_000_000))
        names = [f"r{n}" for n in range(50)]
        assert all(await asyncio.gather(*(log.add(shown(name), PATIENT) for name in names)))
        await until(lambda: store.rows == names)
        assert store.calls == 1
        await log.close()
        assert store.rows == names
        assert list(tmp_path.iterdir()) == []

    run(scenario)


def test_a_store_that_fails_for_a_while_loses_none_and_keeps_the_order(tmp_path: Path):
    async def scenario():
        store = Store(failures=3)
        log = ImpressionLog(store, Spool(tmp_path, 1_000_000), retry_seconds=0.01)
        for n in range(10):
            assert await log.add(shown(f"r{n}"), PATIENT)
        await until(lambda: len(store.rows) == 10)
        assert store.rows == [f"r{n}" for n in range(10)]
        assert log.lost == 0
        await log.close()

    run(scenario)


def test_a_full_spool_says_so_and_shutdown_keeps_what_there_is(tmp_path: Path):
    async def scenario():
        dead = Store(failures=10_000)
        log = ImpressionLog(dead, Spool(tmp_path, 10_000), retry_seconds=0.01)
        kept = [await log.add(shown(f"r{n}", query="x" * 900), PATIENT) for n in range(20)]
        assert kept == sorted(kept, reverse=True)
        assert 5 < sum(kept) < 15
        assert log.lost == kept.count(False)
        await asyncio.wait_for(log.close(), 2)
        store = Store()
        successor = ImpressionLog(store, Spool(tmp_path, 10_000))
        successor.start()
        await until(lambda: len(store.rows) == sum(kept))
        assert store.rows == [f"r{n}" for n in range(sum(kept))]
        await successor.close()
        assert list(tmp_path.iterdir()) == []

    run(scenario)


def test_what_a_gateway_leaves_later_is_found_without_traffic(tmp_path: Path):
    async def scenario():
        store = Store()
        log = ImpressionLog(store, Spool(tmp_path, 1_000_000), adopt_seconds=0.05)
        log.start()
        other = Spool(tmp_path, 1_000_000)
        other.append([shown("left")])
        other.close()
        await until(lambda: store.rows == ["left"])
        await log.close()

    run(scenario)


def test_it_can_be_started_again(tmp_path: Path):
    store = Store()
    log = ImpressionLog(store, Spool(tmp_path, 1_000_000))

    async def scenario(name: str):
        log.start()
        assert await log.add(shown(name), PATIENT)
        await log.close()
        await log.close()
        assert list(tmp_path.iterdir()) == []

    for name in ("r0", "r1", "r2"):  # each in a loop of its own
        run(functools.partial(scenario, name))
    assert store.rows == ["r0", "r1", "r2"]


def test_one_that_no_store_takes_is_refused_at_once(tmp_path: Path):
    async def scenario():
        log = ImpressionLog(Store(), Spool(tmp_path, 1_000_000))
        assert not await log.add(shown("r", query="half a pair \ud800"), PATIENT)
        assert not await log.add(shown("r", kind="guess"), PATIENT)
        assert await log.add(shown("r"), PATIENT)
        assert log.lost == 2
        await log.close()

    run(scenario)


def test_a_slow_disk_delays_an_answer_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def scenario():
        spool = Spool(tmp_path, 1_000_000)
        store, append = Store(), spool.append
        monkeypatch.setattr(spool, "append", lambda rows: (time.sleep(0.4), append(rows))[1])
        log = ImpressionLog(store, spool)
        begin = time.monotonic()
        assert not await log.add(shown("slow"), 0.05)
        assert time.monotonic() - begin < 0.35
        await log.close()
        assert store.rows == ["slow"], "kept all the same"

    run(scenario)


@pytest.mark.timeout(120)
def test_a_locked_database_gets_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real store: while another process holds its lock impressions wait on disk;
    afterwards each is there once, also those that were handed over twice."""
    monkeypatch.setattr("fuserank.store.engine.BUSY_SECONDS", 0.3)
    file = tmp_path / "shop.db"

    async def scenario():
        feedback = Feedback(f"sqlite:///{file}")
        log = ImpressionLog(feedback.add_impressions, Spool(tmp_path / "spool", 1_000_000), retry_seconds=0.05)
        assert await log.add(shown("before"), PATIENT)
        await until(lambda: log._spool.lines == 0)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for n in range(30):
                assert await log.add(shown(f"locked{n}"), PATIENT)
            await asyncio.sleep(1.0)
            assert log._spool.lines == 30
            other.execute("ROLLBACK")
        await until(lambda: log._spool.lines == 0)
        await log.close()
        twice = Spool(tmp_path / "spool", 1_000_000)
        twice.append([shown(f"locked{n}") for n in range(5)])
        again = ImpressionLog(feedback.add_impressions, twice)
        assert await again.add(shown("after"), PATIENT)
        await again.close()

    run(scenario)
    with Database(f"sqlite:///{file}") as database:
        stored = sorted(database.read_impressions()["request_id"].to_pylist())
    assert stored == sorted(["before", "after", *(f"locked{n}" for n in range(30))])
