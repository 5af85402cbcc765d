"""Stages as submitted Ray jobs on a cluster that `ray start --head` made: the code travels with the job."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fuserank.config import load
from fuserank.errors import ServeError
from serve.launcher import claim_port, free_port
from workloads.cli import STAGES

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
SMALL = {
    "records.generate.products": 240,
    "records.generate.users": 40,
    "records.generate.queries": 60,
    "records.generate.speech": "false",
    "pretrain.text.epochs": 1,
    "pretrain.image.epochs": 1,
    "train.epochs": 1,
    "train.refine.steps": 2,
    "tune.trials": 8,
    "tune.epochs": 1,
    "evaluate.bootstrap": 100,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a head node's job API; its processes end with the module."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"  # the cluster's python has the dependencies
    for name in ("PYTHONPATH", "RAY_ADDRESS"):
        env.pop(name, None)
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    command.append(f"--dashboard-agent-listen-port={agent}")  # its default may belong to another Ray of this machine
    log = (tmp_path_factory.mktemp("ray") / "head.log").open("wb")
    head = subprocess.Popen(
        [*command, "--object-store-memory=300000000"], env=env, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2)
                urllib.request.urlopen(f"http://127.0.0.1:{agent}/api/local_raylet_healthz", timeout=2)
                break
            except OSError:
                assert head.poll() is None, Path(log.name).read_text()
                time.sleep(0.5)
        else:
            pytest.fail(f"the job API did not come up: {Path(log.name).read_text()}")
        yield address, env
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)


def command(address: str, root: Path, workload: str, *more: str, wait: bool = True) -> tuple[list[str], str]:
    """The shell command that submits a workload, and the job's name."""
    identity = f"{workload}-{time.time_ns()}"
    sets = [f"--set={key}={value}" for key, value in SMALL.items()]
    environment = str(ROOT / "workloads" / "runtime_env.yaml")
    return [
        *(RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT)),
        *("--runtime-env", environment, "--submission-id", identity),
        *([] if wait else ["--no-wait"]),
        *("--", "python", "-m", "workloads", workload, "-c", "workloads/configs/demo.yaml"),
        *(f"--set=storage.root={root}", *sets, *more),
    ], identity


def status_of(address: str, identity: str) -> str:
    """A job's status as Ray's API tells it."""
    with urllib.request.urlopen(f"{address}/api/jobs/{identity}", timeout=10) as answer:
        return json.load(answer)["status"]


def submit(cluster, root: Path, workload: str, *more: str, timeout: float = 280) -> tuple[str, str]:
    """Submit one workload and wait: (the job's status as Ray's API tells it, its log)."""
    address, env = cluster
    line, identity = command(address, root, workload, *more)
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=timeout, cwd=root)
    assert f"Job '{identity}' submitted" in done.stdout, done.stdout + done.stderr
    status = status_of(address, identity)
    assert (status == "SUCCEEDED") == (done.returncode == 0), done.stdout + done.stderr
    return status, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_preprocess_and_train_run_as_jobs(cluster, tmp_path):
    for stage in ("generate", "preprocess", "pretrain", "train"):
        status, log = submit(cluster, tmp_path, stage)
        assert status == "SUCCEEDED", log
    manifest = json.loads((tmp_path / "demo" / "train" / "manifest.json").read_text())
    assert manifest["summary"]["epoch"] == 1
    assert (tmp_path / "demo" / "train" / "model" / "model.safetensors").is_file()
    preprocessed = json.loads((tmp_path / "demo" / "preprocess" / "manifest.json").read_text())
    assert preprocessed["stage"] == "preprocess"


@pytest.mark.timeout(300)
def test_a_failing_job_says_why(cluster, tmp_path):
    status, log = submit(cluster, tmp_path, "train")
    assert status == "FAILED"
    assert "fuserank preprocess" in log or "fuserank pretrain" in log
    status, log = submit(cluster, tmp_path, "generate", "--set=storage.root=runs")
    assert status == "FAILED"
    assert "relative" in log


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_every_stage_runs_as_a_job(cluster, tmp_path):
    for stage in STAGES:
        status, log = submit(cluster, tmp_path, stage)
        assert status == "SUCCEEDED", log
        assert json.loads((tmp_path / "demo" / stage / "manifest.json").read_text())["stage"] == stage
    assert load(tmp_path / "demo" / "tune" / "best.yaml").name == "demo"
    serves_until_stopped(cluster, tmp_path)


def serves_until_stopped(cluster, root: Path) -> None:
    """`serve` as a job: it answers, and when the job is stopped nothing listens any more."""
    address, env = cluster
    port = free_port()
    line, identity = command(address, root, "serve", f"--set=serve.port={port}", wait=False)
    subprocess.run(line, env=env, check=True, capture_output=True, timeout=60, cwd=root)
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: urllib.request.urlopen(f"{url}/v1/health/ready", timeout=5).status == 200, 240)
    asked = urllib.request.Request(
        f"{url}/v1/search", b'{"text": "lamp", "limit": 3}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert len(json.load(answer)["hits"]) == 3
    assert status_of(address, identity) == "RUNNING"
    subprocess.run([RAY, "job", "stop", "--address", address, identity], env=env, check=True, timeout=60)
    wait_for(lambda: status_of(address, identity) == "STOPPED", 60)
    wait_for(lambda: claim_port("127.0.0.1", port) == port, 30)


def wait_for(true: Callable[[], bool], seconds: float) -> None:
    """Ask until it is so; errors of a service that is not there (yet, or any more) count as no."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except (OSError, ServeError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_the_demo_runs_as_a_job(cluster, tmp_path):
    status, log = submit(cluster, tmp_path, "demo", "--exit", f"--set=serve.port={free_port()}", timeout=840)
    assert status == "SUCCEEDED", log
    assert "recommended after these events" in log
    assert "3 accepted" in log


def test_the_runtime_environment_is_what_the_docs_submit():
    environment = yaml.safe_load((ROOT / "workloads" / "runtime_env.yaml").read_text())
    assert environment["env_vars"]["PYTHONPATH"] == "platform"
