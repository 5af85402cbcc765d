"""The whole service through Ray Serve and HTTP, in a process of its own because the flags must precede Ray."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from fuserank import config
from fuserank.config import Experiment
from fuserank.store.database import Database
from serve.app import store_url

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from fuserank import config
from serve import launcher
from workloads import cluster, serve

experiment = config.load(sys.argv[1])
with cluster.connect(launcher.environment()):
    print(serve.run(experiment))
"""


def haproxies(port: int) -> list[int]:
    """Processes whose HAProxy configuration names the port."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts = entry.read_bytes().split(b"\0")
            files = [part.decode() for part in parts if part.endswith(b"haproxy.cfg")]
            if files and f":{port}\n" in Path(files[0]).read_text():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.timeout(280)
def test_start_answer_and_end(experiment: Experiment, tmp_path: Path):
    file = tmp_path / "tiny.yaml"
    config.dump(experiment, file)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_SERVE_")}
    errors = (tmp_path / "errors").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file)], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("storefront "):
                break
        else:
            errors.seek(0)
            pytest.fail(f"the service did not start:\n{errors.read()[-3000:]}")
        url = line.split()[1].rstrip("/")
        requests = check(url)
        port = int(url.rpartition(":")[2])
        running = haproxies(port)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert url in output
        if sys.platform == "linux":
            assert running, "HAProxy was in front"
        assert haproxies(port) == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    with Database(store_url(experiment)) as database:
        stored = {row["request_id"] for row in database.read_impressions().to_pylist()}
    assert requests <= stored  # every answer's impression, also the last ones before the end


def check(url: str) -> set[str]:
    """Ask everything once, then many things at once; the ids of the answers."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        assert http.get("/v1/health/ready").json() == {"status": "ready"}
        searched = http.post("/v1/search", json={"text": "red shoe", "limit": 3, "explain": True}).json()
        assert len(searched["hits"]) == 3
        bad = http.post("/v1/search", json={"text": "x", "filter": {"prize": 1}})
        assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_filter")
        large = http.post("/v1/search", json={"text": "x" * 9_000_000})
        assert large.status_code == 413
        event = {"type": "click", "product_id": searched["hits"][0]["product_id"], "user_id": "zoe"}
        assert http.post("/v1/events", json=[event]).json()["accepted"] == 1
        recommended = http.post("/v1/recommend", json={"user_id": "zoe", "limit": 3}).json()
        assert recommended["source"] == "recommender"
        assert http.get("/").status_code == 200

        def ask(number: int) -> dict[str, Any]:
            answer = http.post("/v1/search", json={"text": f"blue bag {number}", "limit": 5})
            assert answer.status_code == 200, answer.text
            return json.loads(answer.text)

        with ThreadPoolExecutor(16) as threads:
            many = list(threads.map(ask, range(64)))
    assert len({answer["request_id"] for answer in many}) == 64
    return {answer["request_id"] for answer in (searched, recommended, *many)}
