"""Off-policy estimators against sums done by hand, known truths and real logs."""

import json
import math

import numpy as np
import pytest

from fuserank.errors import PolicyError
from fuserank.evaluation.intervals import interval
from fuserank.feedback.estimators import METHODS, Log, estimate, weights_of

R = np.array([[1.0], [0.0], [1.0], [0.0], [1.0]])
W = np.array([[0.5], [2.0], [4.0], [0.0], [1.0]])
Q = np.array([[0.4], [0.2], [0.6], [0.1], [0.5]])  # the model's word on what was shown
V = np.array([[0.3], [0.3], [0.5], [0.2], [0.4]])  # and on what the policy would show


def test_closed_forms() -> None:
    found = estimate(Log(R, W, Q, V), clip=1.5, switch=2.5)
    expected = {
        "ips": (0.5 + 4 + 1) / 5,
        "clipped_ips": (0.5 + 1.5 + 1) / 5,
        "snips": (0.5 + 4 + 1) / 7.5,
        "dm": 1.7 / 5,
        "dr": (1.7 + 0.5 * 0.6 - 2 * 0.2 + 4 * 0.4 - 0 + 1 * 0.5) / 5,
        "switch_dr": (1.7 + 0.5 * 0.6 - 2 * 0.2 + 1 * 0.5) / 5,
    }
    assert {name: e.value for name, e in found.items()} == pytest.approx(expected)
    assert tuple(found) == METHODS
    assert found["ips"].effective == pytest.approx(7.5**2 / (0.25 + 4 + 16 + 1))
    assert found["clipped_ips"].effective == pytest.approx(4.5**2 / (0.25 + 2 * 2.25 + 1))
    assert found["switch_dr"].effective == pytest.approx(3.5**2 / (0.25 + 4 + 1))
    assert json.loads(json.dumps(found["dr"].as_dict()))["reliable"] is False


def test_positions_are_averaged_within_an_answer() -> None:
    rewards, weights = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 5.0], [0.5, 1.0]])
    found = estimate(Log(rewards, weights), ["ips", "snips"])
    assert found["ips"].value == pytest.approx((2 + 0.5 + 1) / 4)
    assert found["snips"].value == pytest.approx((2 + 0.5 + 1) / 8.5)
    assert found["ips"].effective == pytest.approx((3.5 + 0.75) ** 2 / (3.5**2 + 0.75**2))


def test_the_serving_policy_itself_is_its_mean() -> None:
    """All weights 1: every estimator gives the mean reward, and the bootstrap the usual standard error."""
    random = np.random.default_rng(0)
    rewards = (random.random((4000, 1)) < 0.3).astype(float)
    flat = np.full_like(rewards, rewards.mean())
    found = estimate(Log(rewards, np.ones_like(rewards), flat, flat, largest=1.0), samples=4000)
    error = rewards.std() / math.sqrt(4000)
    for name in ("ips", "clipped_ips", "snips", "dr", "switch_dr"):
        assert found[name].value == pytest.approx(rewards.mean())
        assert found[name].bootstrap.low == pytest.approx(rewards.mean() - 1.96 * error, abs=0.1 * error)
        assert found[name].bootstrap.high == pytest.approx(rewards.mean() + 1.96 * error, abs=0.1 * error)
        assert found[name].reliable
        assert found[name].effective == pytest.approx(4000)
    log = math.log(4 / 0.05)
    half = math.sqrt(2 * rewards.var(ddof=1) * log / 4000) + 7 * log / (3 * 3999)
    for name in ("ips", "snips"):  # with equal weights snips is the same mean, and its bound the same bound
        bounds = found[name].bernstein
        assert (bounds.low, bounds.high) == pytest.approx((rewards.mean() - half, rewards.mean() + half), rel=1e-6)
        assert bounds.guaranteed
    assert not found["dr"].bernstein.guaranteed


def test_the_range_in_bernsteins_bound() -> None:
    """Half widths at one answer's variance, from the formula of the paper."""
    log, count = math.log(4 / 0.1), len(R)

    def half(values: np.ndarray, width: float) -> float:
        return math.sqrt(2 * values.var(ddof=1) * log / count) + 7 * width * log / (3 * (count - 1))

    wide = (-1e6, 1e6)  # nothing is cut off here
    found = estimate(Log(R, W, largest=10.0, reward_range=wide), level=0.9, clip=3.0)
    for name, width in (("ips", 10 * 2e6), ("clipped_ips", 3 * 2e6)):
        low = found[name].value - half((np.minimum(W, 3) if name == "clipped_ips" else W) * R, width)
        assert found[name].bernstein.low == pytest.approx(max(low, wide[0]))
    narrow = estimate(Log(np.tile(R, (400, 1)), np.tile(W, (400, 1)), largest=4.0), level=0.9)["ips"]
    values = np.tile(W * R, (400, 1))
    expected = math.sqrt(2 * values.var(ddof=1) * log / 2000) + 7 * 4 * log / (3 * 1999)
    assert narrow.bernstein.low == pytest.approx(narrow.value - expected)


def test_what_is_flagged() -> None:
    random, count = np.random.default_rng(1), 2000
    rewards = (random.random((count, 1)) < 0.2).astype(float)

    def words(weights: np.ndarray, r: np.ndarray = rewards, method: str = "ips", **more) -> str:
        return " ".join(estimate(Log(r, weights, **more), [method], samples=50)[method].warnings)

    even = np.ones((count, 1))
    assert words(even) == ""
    assert "support missing" in words(even * (random.random((count, 1)) < 0.9))  # a tenth of the policy never happened
    heavy = even.copy()
    heavy[0] = 400
    assert "weights too large: one answer carries 17%" in words(heavy)
    assert "weights too large: 15% of the weight is cut off" in words(heavy, method="clipped_ips")
    assert "few effective answers: 50" in words(even[:50], rewards[:50])
    assert "few rewards" in words(even, np.eye(1, count).T)
    nothing = estimate(Log(rewards, 0 * even))
    assert np.isnan(nothing["snips"].value)
    assert not any(e.reliable for e in nothing.values())
    wrong = {"predicted": even * 0.8, "expected": even * 0.8}
    found = estimate(Log(rewards, even, **wrong), samples=200)
    assert "reward model says 0.8" in " ".join(found["dm"].warnings)
    assert found["dr"].reliable  # right because of the rewards
    assert found["dr"].value == pytest.approx(rewards.mean())


def test_refused() -> None:
    for chances, logged in (([[0.5]], [[0.0]]), ([[0.5]], [[1.5]]), ([[1.5]], [[0.5]]), ([[0.5]], [[np.nan]])):
        with pytest.raises(PolicyError):
            weights_of(np.array(chances), np.array(logged))
    assert weights_of(np.array([[0.5]]), np.array([[0.25]])) == 2
    for log in (
        {"rewards": R, "weights": W[:3]},
        {"rewards": R[:0], "weights": W[:0]},
        {"rewards": R, "weights": -W},
        {"rewards": 2 * R, "weights": W},
        {"rewards": R, "weights": W, "predicted": Q},
        {"rewards": R, "weights": W, "largest": 3.0},
        {"rewards": R, "weights": W, "influence": R},
    ):
        with pytest.raises(PolicyError):
            Log(**log)
    for method in ("dr", "magic"):
        with pytest.raises(PolicyError, match="no estimator"):
            estimate(Log(R, W), [method])


def test_the_bootstrap_of_skewed_rewards() -> None:
    """BCa moves the interval of a skewed mean to the right as the one of evaluation does, which draws otherwise."""
    values = 30 + np.random.default_rng(4).exponential(size=(60, 1)) ** 2
    found = estimate(Log(values, np.ones_like(values), reward_range=(0, 100)), ["ips"], samples=20_000)["ips"].bootstrap
    expected, plain = (interval(values[:, 0], samples=20_000, method=method) for method in ("bca", "percentile"))
    for side in ("low", "high"):
        moved = getattr(expected, side) - getattr(plain, side)
        assert getattr(found, side) - getattr(plain, side) == pytest.approx(moved, rel=0.25)
