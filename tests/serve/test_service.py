"""The whole service through Ray Serve and HTTP, in a process of its own because the flags must precede Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fuserank import config
from fuserank.config import Experiment
from fuserank.store.database import Database
from fuserank.store.keys import make
from serve.app import store_url
from serve.metrics import METRICS

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
    file, url = tmp_path / "tiny.yaml", f"sqlite:///{tmp_path}/service.db"
    experiment = config.update(experiment, {"store.url": url, "serve.watch.log_folder": str(tmp_path / "logs")})
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
        check_metrics(url)
        check_logs(tmp_path / "logs", next(iter(requests)))
        check_keys(url, experiment)
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


def check_metrics(url: str) -> None:
    """Everything that has been counted reaches Ray's exporter, with the labels that are promised."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        assert http.post("/v1/products/delete", json={"ids": ["nobody"]}).json()["rejected"] == 1
        none = {"fuserank_impressions_lost_total", "fuserank_degraded_total"}  # there are none
        none |= {"fuserank_slates_total", "fuserank_learnt_total"}  # no policy here
        expected = set(METRICS) - none
        missing, deadline = expected, time.monotonic() + 45
        while missing and time.monotonic() < deadline:  # Ray reports every ten seconds
            time.sleep(1)
            samples = [
                (sample, family.type)
                for family in text_string_to_metric_families(http.get("/metrics").text)
                for sample in family.samples
            ]
            names = {sample.name.removeprefix("ray_") for sample, _ in samples}
            missing = {name for name in expected if not {name, f"{name}_count"} & names}
        assert not missing
        for sample, kind in samples:
            name = sample.name.removeprefix("ray_")
            name = name if name in METRICS else name.rpartition("_")[0]
            if name in METRICS:
                assert set(METRICS[name].tags) <= set(sample.labels), sample
                assert kind == METRICS[name].kind
        deployments = {sample.labels.get("deployment") for sample, _ in samples}
        assert {"text-encoder", "image-encoder", "retriever", "reranker", "feedback", "gateway"} <= deployments


def check_logs(folder: Path, request_id: str) -> None:
    """One request's id is in the logs of the processes it passed."""
    lines = [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]
    passed = {
        line["deployment"]
        for line in lines
        if line.get("request_id") == request_id or request_id in line.get("request_ids", ())
    }
    assert {"gateway", "retriever"} <= passed
    assert len({line["pid"] for line in lines if line["deployment"] in passed}) == len(passed)


def check_keys(url: str, experiment: Experiment) -> None:
    """The first key closes the running service within seconds; keys are told apart through the proxy as well."""
    key, stored = make("web", ["search"])
    with Database(store_url(experiment)) as database, httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        database.add_key(stored)
        deadline = time.monotonic() + 5
        while http.post("/v1/search", json={"text": "x"}).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        good = {"Authorization": f"Bearer {key}"}
        assert http.post("/v1/search", json={"text": "x"}, headers=good).status_code == 200
        assert http.post("/v1/products/delete", json={"ids": []}, headers=good).status_code == 403
        assert http.get("/metrics", headers=good).status_code == 403
        assert http.get("/v1/health/ready").status_code == 200
        database.revoke_key(stored.id)
        while http.post("/v1/search", json={"text": "x"}, headers=good).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)


OPEN = """
import sys
from ray import serve
from fuserank import config
from fuserank.errors import ServeError
from serve import launcher
from serve.app import build
from workloads import cluster

with cluster.connect(launcher.environment()):
    serve.start(proxy_location="Disabled", http_options={"host": "0.0.0.0", "port": 0})
    try:
        build({"config": sys.argv[1]})
    except ServeError as error:
        print("refused:", error)
    serve.shutdown()
"""


@pytest.mark.timeout(120)
def test_serve_deploy_on_an_open_address_is_refused_without_a_key(experiment: Experiment, tmp_path: Path):
    """The address comes from Ray Serve's own options there; the config says loopback."""
    file = tmp_path / "tiny.yaml"
    config.dump(config.update(experiment, {"store.url": f"sqlite:///{tmp_path}/open.db"}), file)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_SERVE_")}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(file)], capture_output=True, text=True, env=environment, timeout=100
    )
    assert "refused: other machines can reach 0.0.0.0" in done.stdout, done.stderr[-2000:]
