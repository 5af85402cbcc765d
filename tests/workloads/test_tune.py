"""The tune stage on a tiny real run: real trials on real cached encoder outputs, and a best.yaml that trains."""

import json
import re
import shutil

import pytest

from fuserank import config
from fuserank.artifacts import stage_path
from fuserank.models.checkpoint import load_model
from tests.workloads import tiny
from tune.front import front
from tune.ledger import Trial
from workloads import train, tune
from workloads.trial_answers import served_ndcg
from workloads.trial_shop import TrialShop
from workloads.trials import trial_settings


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    built = tiny.build_run(tmp_path_factory.mktemp("tune"), held_out="validation")
    sets = {"tune.trials": 8, "tune.epochs": 4, "train.batch_size": 16, "tune.space.widths": [16, 32]}
    sets |= {"train.epochs": 1, "train.refine.steps": 5, "train.cpus_per_worker": 1}
    sets |= {"tune.space.candidates": [5], "tune.space.hybrids": ["none", "linear"], "tune.space.rerank_depths": [3]}
    return config.update(built, sets | {"tune.objectives": ["ndcg@10", "latency_ms"]})


@pytest.fixture(scope="module")
def manifest(experiment, ray_cluster):
    return tune.run(experiment)


@pytest.fixture(scope="module")
def found(experiment, manifest):
    return json.loads((experiment.run / "tune" / "trials.json").read_text())


def test_trials_and_winner(experiment, manifest, found):
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == list(range(8))
    assert all(trial["error"] is None for trial in trials)
    assert trials[0]["params"]["fusion.kind"] == experiment.fusion.kind
    complete = [trial for trial in trials if trial["stopped"] is None]
    assert found["best"] == max(complete, key=lambda trial: (trial["score"], -trial["number"]))["number"]
    assert manifest["summary"]["best"]["score"] >= manifest["summary"]["present"]["score"]
    stopped = [trial for trial in trials if trial["stopped"] is not None]
    assert all(trial["score"] == pytest.approx(trial["history"][-1], abs=1e-6) for trial in stopped)
    assert all(len(trial["history"]) == (trial["stopped"] or 4) for trial in trials)


def test_complete_trials_are_judged_by_the_answers_of_what_they_left(experiment, found):
    folder = experiment.run / "tune"
    shop = TrialShop(experiment, folder)
    complete = [trial for trial in found["trials"] if trial["stopped"] is None]
    assert {trial["params"]["index.hybrid"] for trial in complete} > {"learnt"}
    trial = complete[-1]
    chosen = config.update(experiment, trial["params"])
    want = served_ndcg(shop, chosen, shop.model(chosen, trial["number"]))
    assert trial["score"] == pytest.approx(want, abs=1e-6)
    assert any(trial["score"] != pytest.approx(trial["history"][-1], abs=1e-3) for trial in complete)
    assert found["metric"] == "validation ndcg@10 as served"


def test_what_no_product_has_is_not_searched(found):
    assert "loss.weights.attributes" in found["trials"][0]["params"]
    assert "loss.weights.audio" not in found["trials"][0]["params"]


def test_latency_and_front(found):
    trials = [Trial(**{k: v for k, v in t.items() if k != "latency_ms"}) for t in found["trials"]]
    latency = {t["number"]: t["latency_ms"] for t in found["trials"] if t["latency_ms"] is not None}
    assert set(latency) == {trial.number for trial in trials if trial.complete}
    assert all(0.05 < ms < 500 for ms in latency.values())
    assert found["front"] == [trial.number for trial in front(trials, latency)]
    assert all(trial.cost is not None for trial in trials)


def test_the_report_shows_every_trial(experiment, found):
    page = (experiment.run / "tune" / "report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) >= 2  # trials, front, and what mattered
    assert "Quality against latency" in page
    table = page[page.index("<h2>Trials</h2>") :]
    for trial in found["trials"]:
        assert f">{trial['score']:.4f}<" in table


def test_best_is_a_valid_experiment_that_differs_only_where_searched(experiment, manifest, found):
    folder = experiment.run / "tune"
    chosen = config.load(folder / "best.yaml")
    assert chosen == config.update(experiment, manifest["summary"]["best"]["params"])
    back = {path: tune_value(experiment, path) for path in manifest["summary"]["best"]["params"]}
    assert config.update(chosen, back) == experiment
    assert sorted(path.stem for path in (folder / "front").iterdir()) == sorted(map(str, found["front"]))
    assert config.load(folder / "front" / f"{found['front'][0]}.yaml").name == experiment.name


def test_whole_trainings_at_once_are_as_many_as_have_room_for_their_workers(experiment, ray_cluster):
    asked = config.update(experiment, {"tune.training": "whole", "tune.concurrent": 8, "train.cpus_per_worker": 1})
    for workers, at_once in ((1, 2), (2, 1), (3, 1)):  # on two CPUs; three workers wait for a node that joins
        assert trial_settings(config.update(asked, {"train.workers": workers})) == {"concurrent": at_once, "cpus": 0}
    alone = config.update(experiment, {"tune.concurrent": 8, "tune.cpus_per_trial": 9})
    assert trial_settings(alone) == {"concurrent": 8, "cpus": 2}  # Ray starts as many as fit


def test_a_second_run_is_skipped(experiment, manifest):
    assert tune.run(experiment) == manifest


def test_an_interrupted_stage_ends_with_the_same_trials(experiment, manifest, found, tmp_path):
    """All but four finished trials are lost, and so are the manifest and what came after the trials."""
    other = config.update(experiment, {"storage.root": str(tmp_path)})
    shutil.copytree(experiment.run, other.run)
    folder = other.run / "tune"
    for name in ("manifest.json", "trials.json", "best.yaml", "report.html", "latency.json"):
        (folder / name).unlink()
    lines = (folder / "trials.jsonl").read_text().splitlines(keepends=True)
    (folder / "trials.jsonl").write_text("".join(lines[:4]))
    kept = (folder / "cache" / "product_text.npy").stat().st_mtime_ns
    tune.run(other)
    again = json.loads((folder / "trials.json").read_text())
    assert (folder / "cache" / "product_text.npy").stat().st_mtime_ns == kept
    for one, two in zip(found["trials"], again["trials"], strict=True):
        same = ("number", "params", "score", "history", "stopped", "cost")
        assert {key: one[key] for key in same} == {key: two[key] for key in same}
    assert (folder / "trials.jsonl").read_text().splitlines(keepends=True)[:4] == lines[:4]


def test_best_trains_as_it_stands(experiment, manifest):
    chosen = config.load(experiment.run / "tune" / "best.yaml")
    summary = train.run(chosen)["summary"]
    assert summary["epoch"] == 1
    model = load_model(stage_path(chosen, "train") / "model")
    assert (model.description["kind"], model.width) == (chosen.fusion.kind, chosen.fusion.width)


def tune_value(experiment, path: str):
    for part in path.split("."):
        experiment = getattr(experiment, part)
    return experiment
