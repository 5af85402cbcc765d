"""kill -9 of a process that writes: what it acknowledged is there, exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import fuserank
from fuserank.store.database import Database, run_database

PLATFORM = Path(fuserank.__file__).parents[1]


def test_acknowledged_events_survive_kill_9(tmp_path) -> None:
    survive(run_database(tmp_path)[1], lives=4, least=100)


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_twenty_kills_in_a_row(any_url: str) -> None:
    """SQLite and, where it can be started, PostgreSQL."""
    survive(any_url, lives=20, least=1000)


def survive(url: str, lives: int, least: int) -> None:
    """Writers are killed at random moments; what they had acknowledged is in the store, once, and known again."""
    moments = random.Random(8)
    acknowledged: set[str] = set()
    for life in range(lives):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("store_writer.py")), url, f"life{life}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PLATFORM)},
        )
        assert process.stdout is not None
        first = process.stdout.readline()  # it is up and writing
        time.sleep(moments.uniform(0.02, 0.3))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        complete = (first + rest).rpartition("\n")[0]
        acknowledged |= set(complete.split())
    assert len(acknowledged) > least
    with Database(url) as database:
        stored = Counter(database.read_events().column("event_id").to_pylist())
        assert acknowledged <= set(stored)
        assert max(stored.values()) == 1
        again = [{"event_id": name, "type": "click", "product_id": "p"} for name in sorted(acknowledged)]
        found = sum(database.add_events(again[start : start + 500]).duplicates for start in range(0, len(again), 500))
        assert found == len(again)
