"""The estimators on the Open Bandit logs: both directions against what the other policy really earned."""

import numpy as np
import pytest

from fuserank.evaluation.intervals import paired_difference
from fuserank.evaluation.probabilities import auc, calibration_error
from fuserank.feedback.estimators import METHODS, Estimate, Log, estimate, weights_of
from fuserank.feedback.rewards import fit_rewards
from fuserank.training.click import Shown, cross_fitted
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


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_a_click_model_claims_no_more_than_few_clicks_tell(logs) -> None:
    """46 clicks on 10,000 products shown, told by places, products and users, each fifth by a model of the others:
    no worse than the clicks' own rate by more than chance, and calibrated as true chances would seem to be, or as that
    rate, which is too low in a part that had many clicks, because they are not in it."""
    for name, log in logs.items():
        users = [np.eye(int(log.users[:, n].max()) + 1)[log.users[:, n]] for n in range(4)]
        told = np.concatenate([np.eye(ARMS)[log.arms], log.affinity[:, None], *users], axis=1)
        happened = np.stack([log.clicks, np.zeros_like(log.clicks)], axis=1)
        chance = cross_fitted(Shown(told, log.positions, happened, np.arange(len(log.arms))))[:, 0]
        fold = np.arange(len(log.arms)) * 5 // len(log.arms)
        rate = np.array([log.clicks[fold != place].mean() for place in range(5)])[fold]
        saved = paired_difference(costs(rate, log.clicks), costs(chance, log.clicks))
        error, plain = calibration_error(chance, log.clicks), calibration_error(rate, log.clicks)
        random = np.random.default_rng(0)
        true = [calibration_error(chance, (random.random(len(chance)) < chance).astype(float)) for _ in range(200)]
        print(
            f"{name}: AUC {auc(chance, log.clicks):.3f}, log loss {costs(chance, log.clicks).mean():.5f} (rate alone "
            f"{costs(rate, log.clicks).mean():.5f}, saved {saved.low:.5f} to {saved.high:.5f}), calibration error "
            f"{error:.5f} (rate alone {plain:.5f}; true chances {np.mean(true):.5f}, 97.5 % below "
            f"{np.quantile(true, 0.975):.5f})"
        )
        assert saved.high > 0
        assert error < max(np.quantile(true, 0.975), 1.1 * plain)


def costs(chance: np.ndarray, happened: np.ndarray) -> np.ndarray:
    return -(happened * np.log(chance) + (1 - happened) * np.log1p(-chance))


def covers_or_says_so(found: dict[str, Estimate], truth: float) -> None:
    assert tuple(found) == METHODS
    for method, estimated in found.items():
        held = estimated.bootstrap.low <= truth <= estimated.bootstrap.high
        assert held or not estimated.reliable, (method, estimated)
