"""The tune stage on a tiny real run: real trials on real cached encoder outputs, and a best.yaml that loads."""

import json

import pytest

from fuserank import config
from tests.workloads import tiny
from workloads import tune


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    built = tiny.build_run(tmp_path_factory.mktemp("tune"), held_out="validation")
    return config.update(built, {"tune.trials": 4, "tune.epochs": 2, "train.batch_size": 16})


@pytest.fixture(scope="module")
def manifest(experiment, ray_cluster):
    return tune.run(experiment)


def test_trials_and_winner(experiment, manifest):
    folder = experiment.run / "tune"
    found = json.loads((folder / "trials.json").read_text())
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert all(trial["error"] is None for trial in trials)
    assert trials[0]["params"]["fusion.kind"] == experiment.fusion.kind
    assert found["best"] == max(trials, key=lambda trial: (trial["score"], -trial["number"]))["number"]
    assert manifest["summary"]["best"]["score"] >= manifest["summary"]["present"]["score"]
    assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_best_is_a_valid_experiment_that_differs_only_where_searched(experiment, manifest):
    found = config.load(experiment.run / "tune" / "best.yaml")
    assert found == config.update(experiment, manifest["summary"]["best"]["params"])
    back = {path: tune_value(experiment, path) for path in manifest["summary"]["best"]["params"]}
    assert config.update(found, back) == experiment


def test_a_second_run_is_skipped(experiment, manifest):
    assert tune.run(experiment) == manifest


def tune_value(experiment, path: str):
    for part in path.split("."):
        experiment = getattr(experiment, part)
    return experiment
