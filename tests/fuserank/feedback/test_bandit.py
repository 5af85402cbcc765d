"""The estimators on the Open Bandit logs: both directions against what the other policy really earned."""

import numpy as np
import pytest

from fuserank.feedback.estimators import METHODS, Estimate, Log, estimate, weights_of
from fuserank.feedback.rewards import fit_rewards
from tests.fuserank.feedback.bandit import ARMS, BanditLog, chances, features, needs_data, read

pytestmark = needs_data


@pytest.fixture(scope="module")
def logs() -> dict[str, BanditLog]:
    return {policy: read(policy) for policy in ("random", "bts")}


def cross(log: BanditLog, policy: np.ndarray) -> tuple[np.ndarray, dict[str, Estimate]]:
    """Weights and estimates of a policy (chances [arms, positions]) from a log."""
    weights = weights_of(policy[log.arms, log.positions][:, None], log.propensities[:, None])
    shown, intended = features(log.positions, np.eye(ARMS)[log.arms]), features(log.positions, policy.T[log.positions])
    model = fit_rewards(shown, log.clicks[:, None], intended, ridge=10.0)
    whole = Log(log.clicks[:, None], weights, model.predicted, model.expected, model.influence)
    return weights, estimate(whole, samples=2000)


def test_on_policy(logs) -> None:
    for log in logs.values():
        found = estimate(Log(log.clicks[:, None], np.ones((len(log.clicks), 1)), largest=1.0))["ips"]
        assert found.value == pytest.approx(0.0046)
        assert found.reliable
        assert found.bootstrap.low == pytest.approx(0.0033, abs=0.0003)
        assert found.bootstrap.high == pytest.approx(0.0062, abs=0.0004)


def test_uniform_from_thompson(logs) -> None:
    weights, found = cross(logs["bts"], np.full((ARMS, 3), 1 / ARMS))
    assert found["ips"].value == pytest.approx(0.0074, abs=5e-5)
    assert found["snips"].value == pytest.approx(0.0024, abs=5e-5)
    assert weights.max() == pytest.approx(21_739, abs=1)
    assert not found["ips"].reliable
    assert any("weights too large" in warning for warning in found["ips"].warnings)
    covers_or_says_so(found, logs["random"].clicks.mean())


def test_thompson_from_uniform(logs) -> None:
    weights, found = cross(logs["random"], chances(logs["bts"]))
    assert weights.mean() == pytest.approx(1, abs=0.05)
    assert found["snips"].effective > 100
    covers_or_says_so(found, logs["bts"].clicks.mean())


def covers_or_says_so(found: dict[str, Estimate], truth: float) -> None:
    assert tuple(found) == METHODS
    for method, estimated in found.items():
        held = estimated.bootstrap.low <= truth <= estimated.bootstrap.high
        assert held or not estimated.reliable, (method, estimated)
