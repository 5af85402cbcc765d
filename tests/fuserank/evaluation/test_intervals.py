"""Bootstrap intervals against scipy-free independent computation, and a small coverage check."""

import numpy as np
import pytest

from fuserank.errors import EvaluationError
from fuserank.evaluation.intervals import interval, paired_difference, resampled_means, seed_of


def test_percentile_equals_a_loop():
    values = np.random.default_rng(1).beta(2, 5, size=40)
    got = interval(values, samples=500, seed=9, method="percentile")
    random = np.random.default_rng(9)
    means = [np.mean([values[i] for i in random.integers(0, 40, size=40)]) for _ in range(500)]
    assert got.low == pytest.approx(np.percentile(means, 2.5))
    assert got.high == pytest.approx(np.percentile(means, 97.5))
    assert got.mean == pytest.approx(values.mean())


def test_chunking_does_not_change_the_draws():
    values = np.random.default_rng(0).random(3_000_000)
    assert len(resampled_means(values, 3, seed=4)) == 3  # one resample a chunk


def test_bca_shifts_towards_the_long_tail():
    values = np.random.default_rng(2).exponential(size=60)
    plain, corrected = (interval(values, seed=1, method=method) for method in ("percentile", "bca"))
    assert corrected.low > plain.low
    assert corrected.high > plain.high


@pytest.mark.parametrize("shape", ["skewed", "zero inflated"])
def test_coverage_is_near_nominal(shape):
    """Nominal 95 % over 400 simulated samples: three standard errors are 3.3 points."""
    random = np.random.default_rng(11)
    population = random.beta(1.2, 0.6, size=200_000)
    if shape == "zero inflated":
        population[random.random(len(population)) < 0.3] = 0.0
    truth, inside = population.mean(), 0
    for trial in range(400):
        got = interval(random.choice(population, size=120), samples=400, seed=trial)
        inside += got.low <= truth <= got.high
    assert 0.915 <= inside / 400 <= 0.985


def test_paired_difference_is_narrower_than_either_interval():
    random = np.random.default_rng(5)
    hard = random.random(100)
    a, b = hard + 0.05 + 0.02 * random.normal(size=100), hard + 0.02 * random.normal(size=100)
    difference = paired_difference(a, b, seed=3)
    assert difference.excludes_zero
    assert difference.mean == pytest.approx((a - b).mean())
    assert difference.high - difference.low < 0.2 * (interval(a).high - interval(a).low)


def test_nan_queries_are_left_out_of_both():
    a, b = np.array([1.0, np.nan, 0.5, 0.2]), np.array([0.0, 0.3, np.nan, 0.1])
    got = paired_difference(a, b)
    assert got.n == 2
    assert got.mean == pytest.approx((1.0 + 0.1) / 2)


def test_degenerate_and_refused():
    assert interval(np.array([np.nan])).as_dict() == {"mean": None, "low": None, "high": None, "n": 0}
    single = interval(np.array([0.5]))
    assert (single.mean, single.n, np.isnan(single.low)) == (0.5, 1, True)
    constant = interval(np.full(30, 0.3))
    assert (constant.low, constant.high) == (constant.mean, constant.mean)
    assert not paired_difference(np.ones(5), np.ones(5)).excludes_zero
    for bad in (lambda: interval(np.array([1.0, np.inf])), lambda: interval(np.ones(3), level=1.0)):
        with pytest.raises(EvaluationError):
            bad()
    with pytest.raises(EvaluationError, match="same queries"):
        paired_difference(np.ones(3), np.ones(4))


def test_seed_depends_on_names_and_experiment():
    assert len({seed_of(0, "a"), seed_of(1, "a"), seed_of(0, "b"), seed_of(0, "a", "b")}) == 4
    assert seed_of(0, "a") == seed_of(0, "a")
