"""Live changes through Ray Serve and HTTP: found at once, kept by another generation, by a retriever that is killed and
by a service that is started again. In a process of its own because the flags must precede Ray."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fuserank import config
from serve.app import generation_folder
from tests.serve import shop
from tests.serve.test_service import ROOT, SCRIPT
from workloads import generations

CHANGED = ("new", "p04", "q04")
UMBRELLA = {"product_id": "new", "title": "Violet umbrella", "price": 17.5, "category": ["goods", "umbrella"]}


@contextmanager
def service(file: Path, errors: Path) -> Iterator[tuple[httpx.Client, int]]:
    """A running service: a client and the process that started it."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_SERVE_")}
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(file)], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("storefront ")), None)
        assert line is not None, errors.read_text()[-3000:]
        with httpx.Client(base_url=line.split()[1].rstrip("/"), trust_env=False, timeout=60) as http:
            yield http, process.pid
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def replica(name: str, ancestor: int) -> int:
    """The process of our service's only replica of a deployment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"ServeReplica:fuserank:{name}" in (entry / "cmdline").read_text() and ancestor in _ancestors(entry):
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no replica of {name}")


def _ancestors(entry: Path) -> list[int]:
    found = []
    while (parent := int((entry / "stat").read_text().rpartition(")")[2].split()[1])) > 1:
        found.append(parent)
        entry = Path("/proc") / str(parent)
    return found


def search(http: httpx.Client, **query: Any) -> list[str]:
    """Ids of the hits; none while a part of the service restarts."""
    answer = http.post("/v1/search", json={"limit": 50, **query})
    assert answer.status_code in (200, 503, 504), answer.text
    return [hit["product_id"] for hit in answer.json()["hits"]] if answer.status_code == 200 else []


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def changed(http: httpx.Client) -> bool:
    """Whether a search shows everything the test has changed."""
    return (
        search(http, text="violet umbrella", filter={"category": "umbrella"}) == ["new"]
        and "p01" not in search(http, text="green shoe")
        and search(http, text="shoe", filter={"price": {"lte": 0.5}}) == ["p04"]
    )


class Load:
    """Searches at a steady rate until it is stopped; what came back."""

    def __init__(self, url: str, rate: float = 25.0, clients: int = 5):
        self.statuses: Counter[int] = Counter()
        self.answers: Counter[str] = Counter()  # by generation
        self.mixed: list[tuple[str, list[str]]] = []
        self._letters: dict[str, str] = {}  # generation → how its products' ids begin
        self._url, self._pause, self._stopped = url, clients / rate, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def __call__(self, letters: dict[str, str]) -> "Load":
        self._letters = letters
        return self

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as http:
            count = 0
            while not self._stopped.wait(self._pause):
                count += 1
                text = f"{list(shop.COLOURS)[count % 4]} {shop.KINDS[count % 5]} {number} {count}"
                answer = http.post("/v1/search", json={"text": text, "limit": 20})
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    generation, ids = answer.json()["generation"], [h["product_id"] for h in answer.json()["hits"]]
                    self.answers[generation] += 1
                    strangers = [i for i in ids if not i.startswith(self._letters[generation]) and i not in CHANGED]
                    if strangers or len(ids) < 20:
                        self.mixed.append((generation, ids))


def switch(http: httpx.Client, experiment: config.Experiment, identity: str) -> None:
    """Activate a generation and wait until it answers."""
    generations.activate(experiment, identity)
    wait_for(lambda: http.post("/v1/search", json={"text": "hat"}).json()["generation"] == identity, 5)
    assert [row["id"] for row in http.get("/v1/generations").json()["generations"] if row["active"]] == [identity]


@pytest.mark.timeout(600)
def test_changes_outlive_a_switch_a_killed_retriever_and_the_service(tmp_path: Path):
    """And nothing is lost or mixed while generations are switched under load, there and back."""
    file = tmp_path / "tiny.yaml"
    experiment = shop.build_run(tmp_path)
    config.dump(experiment, file)
    first = generation_folder(experiment).name
    second = shop.add_generation(experiment, "q")
    with service(file, tmp_path / "first") as (http, pid):
        picture = base64.b64encode(shop.picture("blue")).decode()
        put = http.post("/v1/products", json=[UMBRELLA | {"images": [picture]}, {"product_id": ""}]).json()
        assert [item["status"] for item in put["items"]] == ["accepted", "rejected"]
        wait_for(lambda: search(http, text="violet umbrella", filter={"category": "umbrella"}) == ["new"])
        assert http.get("/v1/products/new/image").content == shop.picture("blue")
        assert http.patch("/v1/products", json=[{"product_id": "p04", "price": "0.49"}]).json()["accepted"] == 1
        assert http.post("/v1/products/delete", json={"ids": ["p01"]}).json()["accepted"] == 1
        assert http.get("/v1/products/p01").status_code == 404
        wait_for(lambda: changed(http))
        with Load(str(http.base_url))({first: "p", second: "q"}) as load:
            switch(http, experiment, second)
            assert changed(http)
            assert http.patch("/v1/products", json=[{"product_id": "p04", "in_stock": True}]).json()["accepted"] == 1
            time.sleep(1)
            switch(http, experiment, first)
            assert changed(http)
        assert set(load.statuses) == {200}, load.statuses
        assert load.mixed == []
        assert min(load.answers[first], load.answers[second]) > 20, load.answers
        os.kill(replica("retriever", pid), signal.SIGKILL)
        wait_for(lambda: changed(http))
    with service(file, tmp_path / "second") as (http, _):
        wait_for(lambda: changed(http), 10)
        assert http.get("/v1/products/p04").json()["price"]["amount"] == 0.49
        assert http.get("/v1/products/new/image").content == shop.picture("blue")
