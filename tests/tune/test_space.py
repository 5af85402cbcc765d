"""The search space starts at the experiment, and whatever it holds is a valid experiment."""

import pytest
from ray.tune.search.sample import Categorical, Domain, Float

from fuserank import config
from fuserank.config import Experiment
from tune.space import rounded, space, starting_points


def contains(domain: Domain, value) -> bool:
    if isinstance(domain, Categorical):
        return value in domain.categories
    assert isinstance(domain, Float)
    return domain.lower <= value <= domain.upper


def test_every_starting_point_is_inside_and_the_first_is_the_experiment():
    experiment = config.validate(
        {"loss": {"weights": {"image": 3.5, "price": 0.001}}, "fusion": {"modality_dropout": 0.8}}
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
    assert {"loss.weights.text", "loss.weights.image", "loss.weights.align"} <= names


def test_samples_are_valid_experiments(tmp_path):
    experiment = Experiment()
    for _ in range(20):
        params = rounded({path: domain.sample() for path, domain in space(experiment).items()})
        config.dump(config.update(experiment, params), tmp_path / "best.yaml")
        loaded = config.load(tmp_path / "best.yaml")
        assert loaded.fusion.kind == params["fusion.kind"]
        assert loaded.loss.weights.text == params["loss.weights.text"]


@pytest.mark.parametrize(
    ("number", "want"), [(0.0, 0.0), (0.00123456, 0.001235), (1.98765, 1.988), (123456.0, 123500.0)]
)
def test_rounding_keeps_four_digits(number, want):
    assert rounded({"x": number, "kind": "gated", "n": 3}) == {"x": want, "kind": "gated", "n": 3}
