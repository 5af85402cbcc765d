"""The spool on disk: what append answers for is there after kill -9 at any moment, bounded, in order, never shared."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from serve.spool import Spool

ROOT = Path(__file__).resolve().parents[2]


def drained(spool: Spool) -> list[Any]:
    """All rows, which are then done."""
    rows = []
    while (part := spool.read()) is not None:
        rows += part.rows()
        spool.done(part)
    return rows


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_rows_come_out_in_order_and_leave_nothing(tmp_path: Path):
    spool = Spool(tmp_path, 10_000_000)
    rows = [{"n": n, "text": "ü\n\r\u2028" * (n % 7)} for n in range(1000)]
    for begin in range(0, 1000, 90):
        assert spool.append(rows[begin : begin + 90]) == [True] * len(rows[begin : begin + 90])
    assert spool.lines == 1000
    first = spool.read()
    assert first == spool.read(), "what is not done comes again"
    assert drained(spool) == rows
    assert (spool.lines, spool.read()) == (0, None)
    spool.close()
    assert files(tmp_path) == []


def test_segments_are_deleted_as_they_are_emptied(tmp_path: Path):
    spool = Spool(tmp_path, 100_000)
    for turn in range(50):  # ten times as much as it holds, a little at a time
        assert all(spool.append([{"turn": turn, "text": "x" * 1000}] * 20))
        assert len(drained(spool)) == 20
        assert spool.bytes <= 40_000
        assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) == spool.bytes
    spool.close()


def test_what_the_store_has_does_not_stay_on_disk(tmp_path: Path):
    """Not even in the segment that is written on: a user who is erased must not be found here."""
    spool = Spool(tmp_path, 100_000)
    for turn in range(3):
        assert spool.append([{"user_id": "ann-7d1f0c", "turn": turn}]) == [True]
        assert drained(spool) == [{"user_id": "ann-7d1f0c", "turn": turn}]
        assert [path.stat().st_size for path in tmp_path.glob("*.spool")] == [0]
    assert spool.append([{"n": 1}, {"n": 2}]) == [True, True]
    assert drained(spool) == [{"n": 1}, {"n": 2}]
    spool.close()


def test_it_is_bounded_and_takes_what_still_fits(tmp_path: Path):
    spool = Spool(tmp_path, 10_000)
    kept = spool.append([{"text": "x" * 900} for _ in range(20)])
    assert kept == [True] * 10 + [False] * 10
    assert spool.append([{"text": "x" * 900}, {"n": 1}]) == [False, True]
    assert spool.bytes <= 10_000
    assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) == spool.bytes
    assert len(drained(spool)) == 11
    assert spool.append([{"text": "x" * 900}]) == [True]
    spool.close()


def test_two_never_share_and_what_one_left_the_next_takes_over(tmp_path: Path):
    first, second = Spool(tmp_path, 1_000_000), Spool(tmp_path, 1_000_000)
    first.append([{"of": "first"}])
    second.append([{"of": "second"}])
    assert second.adopt() == 0, "its writer lives"
    assert drained(second) == [{"of": "second"}]
    first.close()
    second.append([{"of": "second", "n": 2}])
    assert second.adopt() == 1
    assert drained(second) == [{"of": "first"}, {"of": "second", "n": 2}]
    second.close()
    assert files(tmp_path) == []


@pytest.mark.parametrize("tail", [b"0000", b'deadbeef {"n":9}\n', b"\0" * 300, b"\n", b'{"n":9}', b"\xff\xfe\n\n"])
def test_damaged_lines_are_passed_over(tmp_path: Path, tail: bytes):
    spool = Spool(tmp_path, 1_000_000)
    spool.append([{"n": 0}, {"n": 1}])
    spool.close()
    (file,) = tmp_path.glob("*.spool")
    with file.open("ab") as out:
        out.write(tail)
    again = Spool(tmp_path, 1_000_000)
    again.append([{"n": 2}])
    assert drained(again) == [{"n": 0}, {"n": 1}, {"n": 2}]
    again.close()
    assert files(tmp_path) == []


def test_a_disk_that_fails_is_said_and_the_rest_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spool, flush = Spool(tmp_path, 1_000_000), os.fdatasync
    assert spool.append([{"n": 0}]) == [True]

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fails)
    assert spool.append([{"n": 1}, {"n": 2}]) == [False, False]
    monkeypatch.setattr(os, "fdatasync", flush)
    assert spool.append([{"n": 3}]) == [True]
    assert drained(spool) == [{"n": 0}, {"n": 3}]
    spool.close()


def test_rows_are_flushed_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spool, flushed = Spool(tmp_path, 1_000_000), []

    def watched(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", watched)
    for n in range(5):
        spool.append([{"n": n}])
        assert flushed[-1] == spool.bytes
    assert len(flushed) == 5
    spool.close()


WRITER = """
import sys
from pathlib import Path
from serve.spool import Spool

spool, n = Spool(Path(sys.argv[1]), 50_000_000), 0
while True:
    rows = [{"run": sys.argv[2], "n": n + i, "text": "x" * (n * 37 % 3000)} for i in range(1 + n % 5)]
    assert all(spool.append(rows))
    n += len(rows)
    print(n, flush=True)
    if n % 7 == 0 and (part := spool.read()) is not None:
        with open(sys.argv[3], "a") as stored:  # stands for the store; a crash after it hands the rows over again
            stored.writelines(f"{row['run']} {row['n']}\\n" for row in part.rows())
        spool.done(part)
"""


def test_kill_9_at_random_moments_loses_nothing_acknowledged(tmp_path: Path):
    """A crashed writer's successor finds all that was acknowledged; each run takes over what the one before left."""
    folder, stored = tmp_path / "spool", tmp_path / "stored"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    moments, acknowledged = random.Random(0), {}
    for run in range(12):
        command = [sys.executable, "-c", WRITER, str(folder), str(run), str(stored)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().splitlines()
        process.wait()
        acknowledged[run] = int(said[-1]) if said and said[-1].isdigit() else 1
    spool = Spool(folder, 50_000_000)
    left = [(int(row["run"]), row["n"]) for row in drained(spool)]
    spool.close()
    taken = [tuple(map(int, line.split())) for line in stored.read_text().splitlines()] if stored.exists() else []
    there = {*left, *taken}
    expected = {(run, n) for run, count in acknowledged.items() for n in range(count)}
    assert expected <= there
    assert len(expected) > 200
    assert files(folder) == []
