"""The last part of training: encoders stand still, the rest learns on, and nothing gets worse on validation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.training import refine as module
from fuserank.training.refine import refine
from fuserank.training.splits import open_splits
from fuserank.training.start import new_model
from fuserank.training.supervised import Supervised

CPU = torch.device("cpu")
SETS = {"train.refine.steps": 20, "train.refine.products": 20, "train.refine.learning_rate": 5e-3}


def begin(experiment: config.Experiment, preprocess: Path, **sets: object) -> Supervised:
    torch.manual_seed(0)
    chosen = config.update(experiment, {**SETS, **sets})
    model = new_model(chosen, preprocess, None)
    return Supervised(model, open_splits(preprocess, model.modalities, 4), chosen, CPU)


def test_heads_learn_and_encoders_stand_still(experiment: config.Experiment, preprocess: Path) -> None:
    job, seen = begin(experiment, preprocess), []
    before = {k: v.clone() for k, v in job.model.state_dict().items()}
    start = job.validate()["ndcg@10"]
    job.catalogue = None
    found = refine(job, lambda step, steps, metrics: seen.append((step, steps, metrics["ndcg@10"])))
    for name, value in job.model.state_dict().items():
        if name.startswith("encoders."):
            assert torch.equal(value, before[name]), name
    for part in ("projections.", "heads.", "fusion.", "recommender."):
        names = [name for name in before if name.startswith(part)]
        assert any(not torch.equal(job.model.state_dict()[name], before[name]) for name in names), part
    assert "align" not in found
    assert job.weights["align"] > 0  # the epochs' own losses stay as they are
    assert job.objective.weights["align"] > 0
    assert found["ndcg@10"] > start + 0.1
    assert found["ndcg@10"] == max(score for _, _, score in seen)
    job.catalogue = None
    assert job.validate()["ndcg@10"] == pytest.approx(found["ndcg@10"], abs=0.02)  # the cache holds float16
    assert [step for step, _, _ in seen] == sorted({step for step, _, _ in seen})
    assert seen[-1][0] == seen[-1][1] >= 20


def test_it_is_the_same_each_time(experiment: config.Experiment, preprocess: Path) -> None:
    runs = []
    for _ in range(2):
        job = begin(experiment, preprocess)
        refine(job, lambda *_: None)
        runs.append(job.model.state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_what_helps_nothing_is_not_kept(experiment: config.Experiment, preprocess: Path) -> None:
    sets = {"train.refine.learning_rate": 3.0, "train.refine.steps": 4}  # wrecks the heads
    job = begin(experiment, preprocess, **sets)
    refine(job, lambda *_: None)
    good = {k: v.clone() for k, v in job.model.state_dict().items()}
    start = job.validate()["ndcg@10"]
    job.catalogue = None
    assert refine(job, lambda *_: None)["ndcg@10"] >= start - 0.02
    kept = begin(experiment, preprocess, **sets, **{"train.keep": "last"})
    kept.model.load_state_dict(good)
    refine(kept, lambda *_: None)
    assert not torch.equal(kept.model.state_dict()["heads.text.weight"], good["heads.text.weight"])


def test_of_too_many_products_some_are_drawn(
    experiment: config.Experiment, preprocess: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 12)
    job = begin(experiment, preprocess)
    splits = module._cached(job)
    assert len(splits.train.product_rows) == 12
    assert set(splits.train.product_rows) <= set(job.splits.train.product_rows)
    assert np.array_equal(splits.validation.product_rows, job.splits.validation.product_rows)
