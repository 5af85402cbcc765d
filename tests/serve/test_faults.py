"""Faults under a steady 50 requests/s through Ray Serve and HTTP, what each costs counted: killed replicas, switched
generations, a redeployment, a locked database, ten times more requests than the service can answer.

`pytest -m prove -s tests/serve/test_faults.py` prints the counts. TIMES says how often each is done.
"""

import base64
import contextlib
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fuserank import config
from fuserank.config import Experiment
from fuserank.store.database import Database
from serve.app import generation_folder, store_url
from tests.serve import shop
from tests.serve.steady import Outcome, Request, Steady
from tests.serve.test_service import ROOT
from workloads import generations

pytestmark = [pytest.mark.prove, pytest.mark.timeout(2400)]
TIMES = int(os.environ.get("FUSERANK_FAULTS", "5"))
RATE, BEFORE, AFTER = 50.0, 5.0, 15.0  # requests and seconds of what is counted around a fault
REPLICATED = ("gateway", "text-encoder", "image-encoder", "retriever", "reranker")
SINGLE = ("feedback", "products")
SCRIPT = """
import sys
from fuserank import config
from serve import launcher
from workloads import cluster, serve

experiment = config.load(sys.argv[1])
with cluster.connect(launcher.environment(experiment.serve)):
    running = serve.start(experiment)
    print("ready", running.url, flush=True)
    from ray import serve as ray_serve
    from serve.app import build
    for count, line in enumerate(sys.stdin):  # each line: deploy anew, other settings
        experiment = config.update(experiment, {"serve.facet_depth": 900 + count})
        ray_serve.run(build({"config": experiment.model_dump(mode="json")}), name="fuserank", route_prefix="/")
        print("deployed", flush=True)
    running.stop()
"""


class Service:
    """A running service and how to hurt it."""

    def __init__(self, experiment: Experiment, process: subprocess.Popen[str], url: str):
        self.experiment, self.process, self.url = experiment, process, url
        self.port = int(url.rpartition(":")[2])

    def replicas(self, name: str) -> list[psutil.Process]:
        """Processes of a deployment's replicas."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if f"ServeReplica:fuserank:{name}" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait_for_replicas(self, name: str, count: int, seconds: float = 90) -> None:
        """Until so many answer: the process of a new one is there before it can."""
        wait_for(lambda: len(self.replicas(name)) >= count, seconds)
        wait_for(lambda: all(p.create_time() < time.time() - 8 for p in self.replicas(name)), 30)

    def memory(self) -> int:
        """Bytes of all replicas, private and shared parts."""
        names = (*REPLICATED, *SINGLE)
        return sum(process.memory_full_info().pss for name in names for process in self.replicas(name))

    def deploy(self) -> None:
        """Anew, with other settings; returns once it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        assert next((line for line in self.process.stdout if line == "deployed\n"), None), "it ended"


@contextlib.contextmanager
def service(folder: Path, replicas: int, **sets: Any) -> Iterator[Service]:
    experiment = shop.build_run(folder)
    names = [name.replace("-", "_") for name in REPLICATED]
    counts = {f"serve.deployments.{name}.min_replicas": replicas for name in names}
    experiment = config.update(experiment, {**counts, "serve.port": 0, "index.keep": 5, **sets})
    config.dump(experiment, folder / "tiny.yaml")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}
    environment |= {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    with (folder / "errors").open("w") as log:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder / "tiny.yaml")], env=environment, **pipes)
    try:
        line = next((line for line in process.stdout or () if line.startswith("ready ")), None)
        assert line is not None, (folder / "errors").read_text()[-3000:]
        yield Service(experiment, process, line.split()[1])
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def ask(number: int) -> Request:
    """Of ten requests seven ask by words, one by words and a picture, two for recommendations."""
    text = f"{list(shop.COLOURS)[number % 4]} {shop.KINDS[number % 5]} {number}"
    if number % 10 < 7:
        return "/v1/search", {"text": text, "limit": 20, "user_id": f"u{number % 50}"}
    if number % 10 == 7:
        picture = base64.b64encode(shop.picture(list(shop.COLOURS)[number % 4], 32 + number % 64)).decode()
        return "/v1/search", {"text": text, "image": picture, "limit": 20}
    return "/v1/recommend", {"product_ids": [f"p{number % 39:02d}"], "limit": 10}


def failed(outcomes: list[Outcome]) -> int:
    return sum(one.status != 200 for one in outcomes)


def around(steady: Steady, fault: Callable[[], object]) -> tuple[int, float, list[Outcome]]:
    """Do it once the load has run for BEFORE seconds: failed requests, seconds from it to the last failure (0: none),
    and all that was asked around it."""
    begin = time.monotonic()
    time.sleep(BEFORE)
    at = time.monotonic()
    fault()
    outcomes = steady.between(begin, max(at + AFTER, time.monotonic()))
    last = max((one.sent + one.seconds - at for one in outcomes if one.status != 200), default=0.0)
    return failed(outcomes), last, outcomes


def kinds(outcomes: list[Outcome]) -> dict[str, int]:
    """What failed answers say."""
    told = [one.answer if one.status == 0 else f"{one.status} {_code(one.answer)}" for one in outcomes]
    return dict(Counter(what for what, one in zip(told, outcomes, strict=True) if one.status != 200))


def _code(answer: Any) -> str:
    return answer.get("error", {}).get("code", "") if isinstance(answer, dict) else str(answer)[:60]


def report(name: str, *told: object) -> None:
    print(f"{name}:", *told, flush=True)


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
