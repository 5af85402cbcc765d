"""Contrast of pairs and of two views against loops."""

import math

import numpy as np
import pytest
import torch

from fuserank.losses.contrast import contrast_loss, two_view_loss


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def softmax_loss(scores: list[float], target: int) -> float:
    return math.log(sum(map(math.exp, scores))) - scores[target]


@pytest.mark.parametrize("masked", [False, True])
def test_contrast_against_loops(masked: bool) -> None:
    left, right, scale = unit(6, 4, seed=1), unit(6, 4, seed=2), 5.0
    same = np.random.default_rng(3).random((6, 6)) < (0.3 if masked else 0)
    same |= same.T
    losses = []
    for i in range(6):
        others = [j for j in range(6) if j == i or not same[i, j]]  # equals are no negatives, the own partner stays
        for one, two in ((left, right), (right, left)):
            losses.append(softmax_loss([scale * float(one[i] @ two[j]) for j in others], others.index(i)))
    arguments = torch.from_numpy(left), torch.from_numpy(right), scale
    found = contrast_loss(*arguments, torch.from_numpy(same)) if masked else contrast_loss(*arguments)
    assert found.item() == pytest.approx(float(np.mean(losses)), abs=1e-5)


def test_further_negatives_against_loops() -> None:
    """They stand against the left rows only, unless they may be equal."""
    left, right, further, scale = unit(5, 4, seed=1), unit(5, 4, seed=2), unit(3, 4, seed=3), 5.0
    same = np.random.default_rng(4).random((5, 8)) < 0.3
    losses = []
    for i in range(5):
        others = [j for j in range(5) if j == i or not same[i, j]]
        hard = [scale * float(left[i] @ further[k]) for k in range(3) if not same[i, 5 + k]]
        losses.append(softmax_loss([scale * float(left[i] @ right[j]) for j in others] + hard, others.index(i)))
        back = [j for j in range(5) if j == i or not same[j, i]]
        losses.append(softmax_loss([scale * float(right[i] @ left[j]) for j in back], back.index(i)))
    sides = (torch.from_numpy(left), torch.from_numpy(right), scale, torch.from_numpy(same), torch.from_numpy(further))
    assert contrast_loss(*sides).item() == pytest.approx(float(np.mean(losses)), abs=1e-5)


def test_the_diagonal_of_same_is_ignored() -> None:
    left, right = torch.from_numpy(unit(5, 3)), torch.from_numpy(unit(5, 3, seed=1))
    assert torch.equal(contrast_loss(left, right, 3.0, torch.eye(5, dtype=torch.bool)), contrast_loss(left, right, 3.0))
    assert contrast_loss(left, right, 3.0, torch.ones(5, 5, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


def test_two_views_against_loops() -> None:
    first, second, temperature = unit(5, 4, seed=1), unit(5, 4, seed=2), 0.2
    views = np.concatenate([first, second])
    losses = []
    for i in range(10):
        others = [j for j in range(10) if j != i]
        scores = [float(views[i] @ views[j]) / temperature for j in others]
        losses.append(softmax_loss(scores, others.index((i + 5) % 10)))
    found = two_view_loss(torch.from_numpy(first), torch.from_numpy(second), temperature)
    assert found.item() == pytest.approx(float(np.mean(losses)), abs=1e-5)


def test_equal_views_of_far_rows_cost_least() -> None:
    rows = torch.eye(4)
    good, bad = two_view_loss(rows, rows, 0.1), two_view_loss(rows, rows.roll(1, 0), 0.1)
    assert good.item() < 0.01
    assert bad.item() > 5
