"""Replicas load their models in turns: no more at a time than there are places, and nobody waits for one that died."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

from serve.turns import turn


def load(folder: Path, seconds: float, slots: int, notes: "multiprocessing.Queue[tuple[float, float]]") -> None:
    with turn(slots, folder):
        begin = time.monotonic()
        time.sleep(seconds)
        notes.put((begin, time.monotonic()))


def test_as_many_at_a_time_as_there_are_places(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    for slots in (1, 2):
        notes: multiprocessing.Queue[tuple[float, float]] = context.Queue()
        workers = [context.Process(target=load, args=(tmp_path, 0.3, slots, notes)) for _ in range(5)]
        for worker in workers:
            worker.start()
        times = [notes.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        together = [sum(begin <= moment < end for begin, end in times) for moment, _ in times]
        assert max(together) <= slots
        if slots == 2:
            assert max(together) == 2


def test_one_that_dies_frees_its_place_and_one_that_hangs_is_not_waited_for(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    notes: multiprocessing.Queue[tuple[float, float]] = context.Queue()
    hanging = context.Process(target=load, args=(tmp_path, 600, 1, notes))
    hanging.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "loading-0.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    begin = time.monotonic()
    with turn(1, tmp_path, wait=0.5):
        assert 0.4 < time.monotonic() - begin < 5
    assert hanging.pid is not None
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.join()
    begin = time.monotonic()
    with turn(1, tmp_path, wait=30):
        assert time.monotonic() - begin < 5
