"""Trials that are whole trainings on two workers each, encoders adapted or frozen; one is killed and goes on."""

import json
import os
import re
import shutil
import signal
import threading
import time

import psutil
import pytest

from fuserank import config
from tests.workloads import tiny
from workloads import tune
from workloads.trial_answers import served_ndcg
from workloads.trial_shop import TrialShop

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    built = tiny.build_run(tmp_path_factory.mktemp("whole"), held_out="validation")
    sets = {
        "tune.training": "whole",
        "tune.trials": 4,
        "tune.algorithm": "random",
        "tune.space.kinds": ["gated"],
        "tune.space.widths": [16],
        "tune.space.adaptations": ["frozen", "full"],
        "train.epochs": 2,
        "train.batch_size": 16,
        "train.workers": 2,
        "train.cpus_per_worker": 1,
        "train.refine.steps": 5,
        "train.checkpoint_seconds": 0,
    }
    return config.update(built, sets)


def kill_one_worker(killed: list[int]) -> None:
    """Kill the first training worker that has been at work for two seconds."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not killed:
        for child in psutil.Process(os.getpid()).children(recursive=True):
            try:
                if re.search(r"ray::.*TrainWorker", " ".join(child.cmdline())):
                    time.sleep(2)
                    child.send_signal(signal.SIGKILL)
                    killed.append(child.pid)
                    return
            except psutil.Error:
                continue
        time.sleep(0.1)


def test_whole_trials(experiment, ray_cluster):
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=(killed,))
    killer.start()
    manifest = tune.run(experiment)
    killer.join()
    assert killed
    folder = experiment.run / "tune"
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    assert [trial["error"] for trial in trials] == [None] * 4
    kinds = {trial["params"]["encoders.text.adaptation"] for trial in trials}
    kinds |= {trial["params"]["encoders.image.adaptation"] for trial in trials}
    assert kinds == {"frozen", "full"}
    assert len({trial["params"]["train.encoder_learning_rate"] for trial in trials}) > 1
    for trial in trials:
        assert len(trial["history"]) == 2
        assert trial["latency_ms"] > 0
        history = folder / "trials" / str(trial["number"]) / "history.jsonl"
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        by_epoch = {line["epoch"]: line["ndcg@10"] for line in lines if line["task"] == "train"}
        assert trial["history"] == pytest.approx([by_epoch[1], max(by_epoch.values())], abs=1e-5)
        assert trial["score"] >= max(by_epoch.values()) - 1e-6  # refining keeps what was best
        assert sorted(path.name for path in history.parent.iterdir() if path.is_dir()) in (
            ["model", "tensorboard"],
            ["model"],
        )
    chosen = config.load(folder / "best.yaml")
    assert chosen == config.update(experiment, manifest["summary"]["best"]["params"])


def test_a_whole_trial_is_judged_by_the_answers_of_what_it_trained(experiment, ray_cluster):
    sets = {"name": "served", "tune.trials": 1, "train.workers": 1, "tune.space.rerank_depths": [3], "train.epochs": 1}
    chosen = config.update(experiment, sets)
    shutil.copytree(experiment.run / "preprocess", chosen.run / "preprocess")
    shutil.copytree(experiment.run / "pretrain", chosen.run / "pretrain")
    trial = tune.run(chosen)["summary"]["best"]
    shop = TrialShop(chosen, chosen.run / "tune")
    assert trial["score"] == pytest.approx(served_ndcg(shop, chosen, shop.model(chosen, 0)), abs=1e-6)
    assert trial["score"] != pytest.approx(trial["history"][-1], abs=1e-4)  # which is of the fused score
