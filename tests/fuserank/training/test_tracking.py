"""Curves: one JSON line an epoch, appended across resumes, and TensorBoard's file where switched on."""

import json
from pathlib import Path

from fuserank.config import Tracking
from fuserank.training.tracking import Tracker


def test_lines_are_appended(tmp_path: Path) -> None:
    for epoch in (1, 2):
        tracker = Tracker(tmp_path / "out", "train", Tracking(tensorboard=False))
        tracker.log(epoch, 2, {"loss": 0.123456789, "ndcg@10": 0.5})
        tracker.close()
    lines = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert lines == [{"task": "train", "epoch": n, "epochs": 2, "loss": 0.123457, "ndcg@10": 0.5} for n in (1, 2)]
    assert not (tmp_path / "out" / "tensorboard").exists()


def test_tensorboard(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "train", Tracking(tensorboard=True))
    tracker.log(1, 1, {"loss": 1.0})
    tracker.close()
    (file,) = (tmp_path / "tensorboard" / "train").iterdir()
    assert b"train/loss" in file.read_bytes()
