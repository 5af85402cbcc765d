"""Killed and starved runs of `preprocess`: after the same command again no product is missing, doubled or different."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "records.generate.products": 400,
    "records.generate.users": 20,
    "records.generate.queries": 40,
    "records.generate.speech": "false",
    "preprocess.rows_per_block": 8,
}
TABLES = ("products", "queries", "query_features", "judgments", "events", "quarantine", "duplicates")

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]


def start(stage: str, root: Path) -> subprocess.Popen:
    sets = [f"--set={key}={value}" for key, value in SETS.items()]
    line = [sys.executable, "-m", "workloads", stage, "-c", "workloads/configs/demo.yaml", f"--set=storage.root={root}"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    env.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [*line, *sets], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(stage: str, root: Path) -> None:
    run = start(stage, root)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said


def tables(root: Path) -> dict[str, list]:
    folder = root / "demo" / "preprocess"
    found = {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in TABLES}
    return found | {"features": pq.read_table(folder / "features").to_pylist()}


def media(root: Path) -> set[str]:
    return {path.name for path in (root / "demo" / "preprocess" / "media").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run makes."""
    root = tmp_path_factory.mktemp("whole")
    for stage in ("generate", "preprocess"):
        finish(stage, root)
    assert len(tables(root)["products"]) == 400
    return root


def until_some_media(root: Path, run: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(media(root)) < 20:
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def task(run: subprocess.Popen) -> psutil.Process:
    """A process that featurizes a block just now; Ray's agents, without which a node dies, are left alone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "MapWorker" in " ".join(child.cmdline()):  # blocks of 8 rows are many: actors
                    return child
    raise AssertionError("no worker was ever at work")


def same(root: Path, whole: Path) -> None:
    assert tables(root) == tables(whole)
    assert {name for name in media(root) if not name.startswith(".")} == media(whole)


def test_the_driver_is_killed(whole: Path, tmp_path: Path) -> None:
    finish("generate", tmp_path)
    run = start("preprocess", tmp_path)
    until_some_media(tmp_path, run)
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert not (tmp_path / "demo" / "preprocess" / "manifest.json").exists()
    _, alive = psutil.wait_procs(children, timeout=60)
    for process in alive:  # Ray's own processes usually end by themselves
        process.kill()
    finish("preprocess", tmp_path)
    same(tmp_path, whole)
    processed = json.loads((tmp_path / "demo" / "preprocess" / "summary.json").read_text())["processed"]
    assert sum(processed.values()) == 400
    assert processed["as before"] > 0  # what was finished was not done again


def test_a_worker_is_killed(whole: Path, tmp_path: Path) -> None:
    finish("generate", tmp_path)
    run = start("preprocess", tmp_path)
    until_some_media(tmp_path, run)
    task(run).kill()
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    same(tmp_path, whole)


def test_the_disk_is_full(whole: Path, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        finish("generate", tmp_path)
        used = shutil.disk_usage(tmp_path).used
        subprocess.run(["mount", "-o", f"remount,size={used + 2**20}", str(tmp_path)], check=True)
        run = start("preprocess", tmp_path)
        said, _ = run.communicate(timeout=300)
        assert run.returncode not in (0, None)
        assert "space" in said
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=400m", str(tmp_path)], check=True)
        finish("preprocess", tmp_path)
        same(tmp_path, whole)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
