"""AUC, log loss and calibration error against pairs and bins written out."""

import numpy as np
import pytest

from fuserank.errors import EvaluationError
from fuserank.evaluation.probabilities import auc, calibration_error, log_loss, reliability


def drawn(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    chance = np.round(random.random(size), 1)  # with ties
    return chance, (random.random(size) < chance).astype(float)


def test_auc_counts_pairs() -> None:
    for seed in range(5):
        chance, happened = drawn(60, seed)
        pairs = [(a > b) + (a == b) / 2 for a in chance[happened > 0] for b in chance[happened == 0]]
        assert auc(chance, happened) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(np.array([0.1, 0.2]), np.ones(2)))


def test_log_loss_is_a_mean_of_logarithms() -> None:
    chance, happened = np.array([0.9, 0.2, 0.5]), np.array([1.0, 0.0, 1.0])
    assert log_loss(chance, happened) == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.5)) / 3)
    assert log_loss(np.array([0.0]), np.ones(1)) == pytest.approx(12 * np.log(10))  # wrong for sure is no infinity


def test_calibration_error_of_bins_by_hand() -> None:
    chance, happened = np.array([0.1, 0.1, 0.2, 0.8, 0.9, 0.7]), np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    mean, share, size = reliability(chance, happened, 2)
    np.testing.assert_allclose(mean, [0.4 / 3, 0.8])
    np.testing.assert_allclose(share, [1 / 3, 2 / 3])
    assert size.tolist() == [3, 3]
    assert calibration_error(chance, happened, 2) == pytest.approx((abs(1 / 3 - 0.4 / 3) + abs(2 / 3 - 0.8)) / 2)


def test_what_means_what_it_says_has_a_small_error() -> None:
    random = np.random.default_rng(0)
    chance = random.random(50_000)
    happened = (random.random(50_000) < chance).astype(float)
    assert calibration_error(chance, happened) < 0.01
    assert calibration_error(chance**2, happened) > 0.1


@pytest.mark.parametrize(
    ("chance", "happened"), [([0.1], [1.0, 0.0]), ([1.2], [1.0]), ([float("nan")], [1.0]), ([0.5], [2.0]), ([], [])]
)
def test_nonsense_is_refused(chance: list[float], happened: list[float]) -> None:
    for measure in (auc, log_loss, calibration_error):
        with pytest.raises(EvaluationError):
            measure(np.array(chance), np.array(happened))
