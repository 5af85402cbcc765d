"""Live changes through Ray Serve and HTTP: found at once, kept by a retriever that is killed and by a service that is
started again. In a process of its own because the flags must precede Ray."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fuserank import config
from tests.serve import shop
from tests.serve.test_service import ROOT, SCRIPT

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


@pytest.mark.timeout(600)
def test_changes_outlive_a_killed_retriever_and_the_service(tmp_path: Path):
    file = tmp_path / "tiny.yaml"
    config.dump(shop.build_run(tmp_path), file)
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
        os.kill(replica("retriever", pid), signal.SIGKILL)
        wait_for(lambda: changed(http))
    with service(file, tmp_path / "second") as (http, _):
        wait_for(lambda: changed(http), 10)
        assert http.get("/v1/products/p04").json()["price"]["amount"] == 0.49
        assert http.get("/v1/products/new/image").content == shop.picture("blue")
