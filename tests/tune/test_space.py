"""The search space starts at the experiment, leaves out what the shop lacks, and all it holds is a valid experiment."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from fuserank import config
from fuserank.config import Experiment
from fuserank.errors import ConfigError
from tune.plan import Plan
from tune.space import rounded, space, starting_points

WHOLE = {"tune": {"training": "whole", "space": {"adaptations": ["frozen", "lora", "full"]}}}


def contains(domain, value) -> bool:
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    assert isinstance(domain, FloatDistribution)
    return domain.low <= value <= domain.high


def test_every_starting_point_is_inside_and_the_first_is_the_experiment():
    experiment = config.validate(
        {"loss": {"weights": {"image": 3.5, "price": 0.001}}, "fusion": {"modality_dropout": 0.8, "width": 32}}
    )
    domains, points = space(experiment), starting_points(experiment)
    for point in points:
        assert set(point) == set(domains)
        assert all(contains(domains[path], value) for path, value in point.items())
    assert config.update(experiment, points[0]) == experiment


def test_all_kinds_are_tried_for_at_most_half_the_trials():
    points = starting_points(Experiment())
    assert [point["fusion.kind"] for point in points] == ["gated", "concat", "attention", "ensemble", "joint"]
    few = config.validate({"tune": {"trials": 4}})
    assert [point["fusion.kind"] for point in starting_points(few)] == ["gated", "concat"]
    assert len(starting_points(config.validate({"tune": {"trials": 1}}))) == 1


def test_absent_modalities_and_zero_weights_stay_out():
    experiment = config.validate({"encoders": {"audio": None}, "loss": {"weights": {"price": 0}}})
    names = set(space(experiment))
    assert "loss.weights.audio" not in names
    assert "loss.weights.price" not in names
    assert {"loss.weights.text", "loss.weights.image", "loss.weights.attributes", "loss.weights.align"} <= names
    of_shop = set(space(experiment, ("text", "image", "price")))
    assert names - of_shop == {"loss.weights.attributes"}  # no product has any


def test_what_is_searched_by_default():
    assert set(space(Experiment())) == {
        *("fusion.kind", "fusion.width", "fusion.modality_dropout", "train.learning_rate"),
        *(f"loss.weights.{name}" for name in ("text", "image", "audio", "price", "attributes", "align")),
    }


def test_encoders_are_searched_only_where_trials_train_them():
    names = space(config.validate(WHOLE))
    assert contains(names["train.encoder_learning_rate"], 5e-4)
    assert names["encoders.text.adaptation"].choices == ("full", "frozen", "lora")
    assert names["encoders.audio.adaptation"].choices == ("full", "frozen")  # our own network takes no LoRA
    assert not {"encoders.price.adaptation", "encoders.attributes.adaptation"} & set(names)
    with pytest.raises(ConfigError, match="needs training: whole"):
        config.validate({"tune": {"space": {"adaptations": ["lora"]}}})


def test_index_and_width():
    sets = {"tune": {"space": {"candidates": [50, 100], "vectors": ["hnsw"], "widths": [48, 64, 52]}}}
    names = space(config.validate(sets | {"encoders": {"recommender": {"heads": 8}}}))
    assert names["index.candidates"].choices == (200, 50, 100)
    assert names["index.vectors"].choices == ("auto", "hnsw")
    assert names["fusion.width"].choices == (128, 48, 64)  # 8 heads do not divide 52
    off = dict.fromkeys(("modality_dropout", "weights", "learning_rate"))
    only = space(config.validate({"tune": {"space": off | {"kinds": ["joint"], "widths": []}}}))
    assert list(only) == ["fusion.kind"]
    with pytest.raises(ConfigError, match="smaller to the larger"):
        config.validate({"tune": {"space": {"weights": [2, 1]}}})


INDEX = {"hybrids": ["none", "rrf"], "hybrid_weight": [0.05, 2.0], "rerank_depths": [10, 50]}


def test_keys_of_the_index_are_searched_where_they_are_listed():
    plain, listed = config.validate({}), config.validate({"tune": {"space": INDEX}})
    assert not any(path.startswith("index.") for path in space(plain))
    assert not plain.tune.space.of_index
    names = space(listed)
    assert names["index.hybrid"].choices == ("learnt", "none", "rrf")
    assert names["index.rerank_depth"].choices == (200, 10, 50)
    assert contains(names["index.hybrid_weight"], 0.3)
    assert (names["index.hybrid_weight"].low, names["index.hybrid_weight"].high) == (0.05, 2.0)
    for key, value in {**INDEX, "candidates": [9], "vectors": ["ivf"], "hybrid_weight": [0.1, 1]}.items():
        one = config.validate({"index": {"hybrid": "linear"}, "tune": {"space": {key: value}}})
        assert one.tune.space.of_index
        assert len([path for path in space(one) if path.startswith("index.")]) == 1
    own = {"hybrid": "linear", "hybrid_weight": 0.0}  # no logarithm of that
    zero = space(config.validate({"index": own, "tune": {"space": {"hybrid_weight": [0.1, 1]}}}))
    assert contains(zero["index.hybrid_weight"], 0.0)
    for kind in ("learnt", "none"):
        with pytest.raises(ConfigError, match="hybrid_weight counts for linear and rrf alone"):
            config.validate({"index": {"hybrid": kind}, "tune": {"space": {"hybrid_weight": [0.1, 1]}}})


@pytest.mark.parametrize("sets", [{}, WHOLE, {"tune": {"space": INDEX}}])
def test_samples_are_valid_experiments(tmp_path, sets):
    experiment = config.validate(sets)
    plan = Plan(space(experiment), starting_points(experiment), 25, "random", lag=25)
    for _ in range(25):
        step = plan.next()
        assert step is not None
        config.dump(config.update(experiment, step.params), tmp_path / "best.yaml")
        loaded = config.load(tmp_path / "best.yaml")
        assert loaded.fusion.kind == step.params["fusion.kind"]
        assert loaded.loss.weights.text == step.params["loss.weights.text"]
        assert loaded.index.hybrid == step.params.get("index.hybrid", "learnt")
        assert loaded.index.rerank_depth == step.params.get("index.rerank_depth", 200)


@pytest.mark.parametrize(
    ("number", "want"), [(0.0, 0.0), (0.00123456, 0.001235), (1.98765, 1.988), (123456.0, 123500.0)]
)
def test_rounding_keeps_four_digits(number, want):
    assert rounded({"x": number, "kind": "gated", "n": 3}) == {"x": want, "kind": "gated", "n": 3}
    assert np.isclose(want, number, rtol=1e-3)
