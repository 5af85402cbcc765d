"""A training worker killed in mid-epoch, twice: the run ends by itself with the weights of one that was not."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "records.generate.products": 240,
    "records.generate.users": 40,
    "records.generate.queries": 60,
    "records.generate.speech": "false",
    "encoders.audio": "null",
    "pretrain.text.epochs": 0,
    "pretrain.image.epochs": 0,
    "train.epochs": 3,
    "train.batch_size": 8,
    "train.queries": 32,
    "train.bank": 100,
    "train.refine.steps": 10,
    "train.precision": "float32",
    "train.cpus_per_worker": 1,
    "train.checkpoint_seconds": 1,
}

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]


def start(stage: str, root: Path, workers: int = 1, **own: object) -> subprocess.Popen:
    sets = [f"--set={key}={value}" for key, value in {**SETS, "train.workers": workers, **own}.items()]
    line = [sys.executable, "-m", "workloads", stage, "-c", "workloads/configs/demo.yaml", f"--set=storage.root={root}"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [*line, *sets], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(run: subprocess.Popen) -> str:
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said
    return said


def prepared(root: Path, workers: int) -> None:
    for stage in ("generate", "preprocess", "pretrain"):
        finish(start(stage, root, workers))


def in_mid_epoch(run: subprocess.Popen, root: Path, known: set[str], stage: str = "train") -> set[str]:
    """Wait for a checkpoint beyond `known` that stands within an epoch; all checkpoints seen by then."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[0]
        seen = known | {str(p.parent) for p in (root / "demo" / stage).glob("trainer/checkpoint_*/**/state.pt")}
        if seen > known:
            time.sleep(0.3)  # into a step that no checkpoint holds
            return seen
        time.sleep(0.02)
    raise AssertionError("no checkpoint was ever made")


def worker(run: subprocess.Popen) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if re.search(r"ray::.*TrainWorker", " ".join(child.cmdline())):
                    return child
    raise AssertionError("no training worker was ever at work")


def weights(root: Path) -> dict:
    return load_file(root / "demo" / "train" / "model" / "model.safetensors")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_is_killed_twice(workers: int, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for root in (straight, killed):
        prepared(root, workers)
    finish(start("train", straight, workers))
    run, seen = start("train", killed, workers), set()
    for _ in range(2):
        seen = in_mid_epoch(run, killed, seen)
        worker(run).kill()
    finish(run)
    one, two = weights(straight), weights(killed)
    assert one.keys() == two.keys()
    furthest = max((one[name].double() - two[name].double()).abs().max().item() for name in one)
    print(f"workers {workers}: largest difference {furthest:.2g}")
    assert furthest <= 1e-6
    history = [(root / "demo" / "train" / "history.jsonl").read_text().splitlines() for root in (straight, killed)]
    last = [json.loads(lines[-1]) for lines in history]
    assert last[0] == last[1]


def test_a_worker_of_pretraining_is_killed_twice(tmp_path: Path) -> None:
    names = ("text", "image", "cross")
    tasks = {f"pretrain.{n}.epochs": 3 for n in names} | {f"pretrain.{n}.batch_size": 8 for n in names}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for root in (straight, killed):
        for stage in ("generate", "preprocess"):
            finish(start(stage, root))
    finish(start("pretrain", straight, **tasks))
    run, seen = start("pretrain", killed, **tasks), set()
    for _ in range(2):
        seen = in_mid_epoch(run, killed, seen, "pretrain")
        worker(run).kill()
    finish(run)
    files = [sorted((root / "demo" / "pretrain" / "checkpoint").glob("*.safetensors")) for root in (straight, killed)]
    assert [f.name for f in files[0]] == [f.name for f in files[1]] != []
    for left, right in zip(*files, strict=True):
        one, two = load_file(left), load_file(right)
        assert max((one[n].double() - two[n].double()).abs().max().item() for n in one) <= 1e-6, left.name
