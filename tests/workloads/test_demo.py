"""The whole path as a newcomer runs it, on a smaller shop: `fuserank demo --exit`, twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("records.generate.products=240", "records.generate.users=60", "records.generate.queries=120"),
    *("pretrain.text.epochs=1", "pretrain.image.epochs=1", "tune.epochs=1", "tune.trials=8"),
    *("train.epochs=2", "train.refine.steps=4", "evaluate.bootstrap=200", "serve.port=0"),
)
STAGES = ("generate", "preprocess", "pretrain", "tune", "train", "index", "evaluate", "feedback")


def run_demo(root: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    sets = [part for value in (f"storage.root={root}", *SMALL) for part in ("--set", value)]
    command = [sys.executable, "-m", "workloads", "demo", "--exit", *sets]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=540)


@pytest.mark.timeout(900)
def test_demo_runs_every_stage_answers_and_then_skips_what_is_finished(tmp_path):
    first = run_demo(tmp_path)
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    run = tmp_path / "demo"
    for stage in STAGES:
        assert json.loads((run / stage / "manifest.json").read_text())["stage"] == stage
    shown = first.stdout + first.stderr
    for question in ("text:", "filtered:", "recommended", "3 accepted"):
        assert question in shown
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
    assert {"bm25", "text", "image", "price", "fused", "served"} <= set(metrics["variants"]["all text"]["systems"])
    joined = json.loads((run / "feedback" / "manifest.json").read_text())["summary"]
    assert joined["events"] >= 3
    trained = (run / "train" / "model" / "model.safetensors").stat().st_mtime_ns
    second = run_demo(tmp_path)
    assert second.returncode == 0, second.stdout[-4000:] + second.stderr[-4000:]
    assert (run / "train" / "model" / "model.safetensors").stat().st_mtime_ns == trained
    for stage in STAGES[:-1]:  # feedback reads a live database, so it always runs
        assert f"{stage}: up to date" in second.stdout + second.stderr
