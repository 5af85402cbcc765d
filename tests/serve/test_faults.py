"""Faults under a steady 50 requests/s through Ray Serve and HTTP, what each costs counted: killed replicas, switched
generations, a redeployment, a locked database, ten times more requests than the service can answer.

`pytest -m prove -s tests/serve/test_faults.py` prints the counts. TIMES says how often each is done.
"""

import contextlib
import signal
import sqlite3
import statistics
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from fuserank.store.database import Database
from serve.app import generation_folder, store_url
from tests.serve import shop
from tests.serve.faults import (
    AFTER,
    BEFORE,
    RATE,
    REPLICATED,
    SINGLE,
    TIMES,
    around,
    ask,
    failed,
    kinds,
    report,
    service,
)
from tests.serve.steady import Outcome, Request, Steady
from workloads import generations

pytestmark = [pytest.mark.prove, pytest.mark.timeout(2400)]


def test_a_killed_replica_of_two_fails_at_most_two_requests(tmp_path: Path) -> None:
    lost: dict[str, list[int]] = {name: [] for name in REPLICATED}
    with service(tmp_path, 2) as running, Steady(running.port, RATE, ask) as steady:
        for name in REPLICATED * TIMES:
            running.wait_for_replicas(name, 2)
            victim = running.replicas(name)[0]
            count, _, outcomes = around(steady, lambda victim=victim: victim.send_signal(signal.SIGKILL))
            assert len(outcomes) > 0.95 * RATE * (BEFORE + AFTER)
            lost[name].append(count)
            report(f"kill one of two, {name}", f"{count} of {len(outcomes)} failed", kinds(outcomes))
    report("failed per kill", lost)
    assert max(max(counts) for counts in lost.values()) <= 2, lost


def test_the_only_replica_is_back_within_15_seconds(tmp_path: Path) -> None:
    took: dict[str, list[float]] = {name: [] for name in (*REPLICATED, *SINGLE)}
    with service(tmp_path, 1) as running, Steady(running.port, RATE, ask) as steady:
        for name in (*REPLICATED, *SINGLE) * TIMES:
            running.wait_for_replicas(name, 1)
            victim = running.replicas(name)[0]
            count, last, outcomes = around(steady, lambda victim=victim: victim.send_signal(signal.SIGKILL))
            took[name].append(round(max(last, *(one.seconds for one in outcomes)), 1))
            told = Counter(part for one in outcomes if one.status == 200 for part in one.answer["degraded"])
            report(f"kill the only {name}", f"{count} of {len(outcomes)} failed", kinds(outcomes))
            report("  seconds until the last failure, or of the longest wait", took[name][-1], "left out", dict(told))
            assert failed(outcomes[-50:]) == 0, "it answers again"
    report("seconds until all is answered again", took)
    assert max(max(values) for values in took.values()) <= 15, took


def test_generations_switch_without_a_failed_or_mixed_answer(tmp_path: Path) -> None:
    counts = []
    with service(tmp_path, 2) as running:
        experiment = running.experiment
        first = generation_folder(experiment).name
        second = shop.add_generation(experiment, "q")
        begins = {first: "p", second: "q"}
        with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as http:
            put = {"product_id": "new", "title": "Violet umbrella", "price": 17.5, "category": ["goods", "umbrella"]}
            assert http.post("/v1/products", json=[put]).json()["accepted"] == 1
            with Steady(running.port, RATE, ask) as steady:
                for identity in (second, first) * TIMES:

                    def switch(identity: str = identity) -> None:
                        generations.activate(experiment, identity)

                    count, _, outcomes = around(steady, switch)
                    shown = [one.answer for one in outcomes if one.status == 200]
                    mixed = sum(
                        any(hit["product_id"][0] not in (begins[answer["generation"]], "n") for hit in answer["hits"])
                        for answer in shown
                    )
                    assert shown[-1]["generation"] == identity
                    found = http.post("/v1/search", json={"text": "umbrella", "filter": {"category": "umbrella"}})
                    assert [hit["product_id"] for hit in found.json()["hits"]] == ["new"]
                    counts.append((count, mixed))
                    report(f"to {identity}", f"{count} of {len(outcomes)} failed, {mixed} mixed", kinds(outcomes))
    report("(failed, mixed)", counts)
    assert set(counts) == {(0, 0)}


def test_a_redeployment_fails_nothing(tmp_path: Path) -> None:
    counts = []
    with service(tmp_path, 2) as running, Steady(running.port, RATE, ask) as steady:
        for _ in range(TIMES):
            count, _, outcomes = around(steady, running.deploy)
            counts.append(count)
            slowest = max(one.seconds for one in outcomes)
            told = f"{count} of {len(outcomes)} failed, the slowest took {slowest:.1f} s"
            report("redeployed", told, kinds(outcomes))
    assert set(counts) == {0}


def test_a_locked_database_stops_no_search_and_loses_nothing(tmp_path: Path) -> None:
    answered: list[Outcome] = []
    with service(tmp_path, 2) as running:
        file = Path(store_url(running.experiment).removeprefix("sqlite:///"))
        with Steady(running.port, RATE, ask) as steady:
            for _ in range(TIMES):
                refused: list[httpx.Response] = []

                def lock(refused: list[httpx.Response] = refused) -> None:
                    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
                        other.execute("BEGIN EXCLUSIVE")
                        event = {"type": "click", "product_id": "p01", "user_id": "u"}
                        url = f"{running.url}/v1/events"
                        refused.append(httpx.post(url, json=[event], trust_env=False, timeout=30))
                        time.sleep(2)
                        other.execute("ROLLBACK")

                count, _, outcomes = around(steady, lock)
                assert refused[0].status_code == 503
                assert refused[0].headers["Retry-After"]
                report("locked for 12 s", f"{count} of {len(outcomes)} failed", kinds(outcomes))
                assert count == 0
        answered = [one for one in steady.outcomes if one.status == 200]
    kept = {one.answer["request_id"] for one in answered if one.answer["logged"]}
    with Database(store_url(running.experiment)) as database:
        stored = database.read_impressions()["request_id"].to_pylist()
    assert len(stored) == len(set(stored))
    assert kept <= set(stored), f"{len(kept - set(stored))} of {len(kept)} acknowledged are missing"
    report("acknowledged", len(kept), "of", len(answered), "answers, all there once")


def test_ten_times_too_many_requests_are_refused_and_the_others_keep_their_deadline(tmp_path: Path) -> None:
    deadline = 1000

    def hurried(number: int) -> Request:
        path, body = ask(number)
        return path, {**body, "deadline_ms": deadline}

    with service(tmp_path, 1, **{"serve.queue": 64, "serve.streams": 0}) as running:
        rate, answered = 20.0, 0.0
        while True:  # until more are asked than are answered
            with Steady(running.port, rate, hurried) as steady:
                begin = time.monotonic()
                outcomes = steady.between(begin + 2, begin + 7)
            answered = sum(one.status == 200 for one in outcomes) / 5
            if answered < 0.9 * rate:
                break
            rate *= 1.6
        report("capacity", f"{answered:.0f} answers/s of {rate:.0f} asked")
        before = running.memory()
        for _ in range(TIMES):
            with Steady(running.port, 10 * answered, hurried) as steady:
                begin = time.monotonic()
                outcomes = steady.between(begin, begin + 20)
                during = running.memory()
            good = [one.seconds for one in outcomes if one.status == 200]
            statuses = Counter(one.status for one in outcomes)
            slow = sum(one.answer["took_ms"] > deadline + 100 for one in outcomes if one.status == 200)
            report(
                "ten times",
                f"{len(outcomes) / 20:.0f}/s asked, {dict(statuses)}, accepted: median {statistics.median(good):.2f} s,"
                f" worst {max(good):.2f} s, {slow} past the deadline;",
                f"memory {before / 2**20:.0f} → {during / 2**20:.0f} MiB",
            )
            assert set(statuses) <= {200, 429, 503, 504}, kinds(outcomes)
            assert slow <= 0.01 * len(good)
            assert during < 1.5 * before + 2**28
            time.sleep(2)
            with Steady(running.port, 10, ask) as steady:
                begin = time.monotonic()
                assert failed(steady.between(begin + 1, begin + 4)) == 0, "it has recovered"
