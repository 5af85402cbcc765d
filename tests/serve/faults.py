"""A service of its own process under a steady load, how to hurt it, and what that cost. For test_faults.py."""

import base64
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from fuserank import config
from fuserank.config import Experiment
from tests.serve import shop
from tests.serve.steady import Outcome, Request, Steady
from tests.serve.test_service import ROOT

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
