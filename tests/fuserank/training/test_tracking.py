"""Curves: one JSON line an epoch, appended across resumes, and TensorBoard's file where switched on."""

import json
import sys
from pathlib import Path

import pytest

from fuserank.config import Tracking
from fuserank.errors import ConfigError
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


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'fuserank\[{name}\]'"):
        Tracker(tmp_path, "train", Tracking.model_validate({name: "somewhere"}))


def test_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    place = f"sqlite:///{tmp_path}/ml.db"
    tracker = Tracker(tmp_path / "shop" / "train", "train", Tracking(tensorboard=False, mlflow=place))
    for epoch, value in ((1, 0.5), (2, 0.75)):
        tracker.log(epoch, 2, {"ndcg@10": value})
    tracker.close()
    client = mlflow.MlflowClient(tracking_uri=place)
    (run,) = client.search_runs([client.get_experiment_by_name("fuserank").experiment_id])
    assert (run.info.run_name, run.info.status) == ("shop/train", "FINISHED")
    found = client.get_metric_history(run.info.run_id, "ndcg_at_10")
    assert [(m.step, m.value) for m in found] == [(1, 0.5), (2, 0.75)]


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = Tracker(tmp_path, "train", Tracking(tensorboard=False, wandb="shop"))
    tracker.log(1, 1, {"loss": 0.5})
    tracker.close()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert b"loss" in file.read_bytes()
