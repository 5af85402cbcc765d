"""The graded ranking loss against loops over every pair, and the properties it is chosen for."""

import math

import numpy as np
import pytest
import torch

from fuserank.losses.ranking import ranking_loss


def directed(scores: np.ndarray, grades: np.ndarray, valid: np.ndarray) -> float:
    levels = sorted({float(g) for g in grades[valid] if g > 0})
    found = []
    for level in levels:
        rows = []
        for q in range(len(scores)):
            positives = [p for p in range(scores.shape[1]) if valid[q, p] and grades[q, p] >= level]
            negatives = [p for p in range(scores.shape[1]) if valid[q, p] and grades[q, p] < level]
            if positives and negatives:
                against = sum(math.exp(scores[q, n]) for n in negatives)
                each = [-math.log(math.exp(scores[q, p]) / (math.exp(scores[q, p]) + against)) for p in positives]
                rows.append(sum(each) / len(each))
        if rows:
            found.append(sum(rows) / len(rows))
    return sum(found) / len(found) if found else 0.0  # every level counts alike


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [[0, 1], [0, 1, 2, 3], [0, 0.5, 2.5]])
@pytest.mark.parametrize("masked", [False, True])
def test_against_loops(seed: int, levels: list[float], masked: bool) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(5, 7))
    grades = random.choice(levels, (5, 7), p=[0.6] + [0.4 / (len(levels) - 1)] * (len(levels) - 1))
    valid = random.random((5, 7)) < (0.6 if masked else 2)
    expected = (directed(scores, grades, valid) + directed(scores.T, grades.T, valid.T)) / 2
    arguments = [torch.from_numpy(a) for a in (scores, grades, valid)]
    found = ranking_loss(*arguments) if masked else ranking_loss(*arguments[:2])
    assert found.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_unjudged_pairs_that_score_like_answers_are_left_out(margin: float) -> None:
    random = np.random.default_rng(7)
    scores, grades = random.normal(size=(6, 9)), random.choice([0, 1, 2], (6, 9), p=[0.6, 0.2, 0.2]).astype(float)
    grades[4] = 0  # a query without an answer keeps all its pairs
    valid = random.random((6, 9)) < 0.8
    kept = valid.copy()
    for q in range(6):
        known = [scores[q, p] for p in range(9) if valid[q, p] and grades[q, p] > 0]
        for p in range(9):
            if known and grades[q, p] == 0 and scores[q, p] > max(known) - margin:
                kept[q, p] = False
    assert 1 < (valid & ~kept).sum() < 20
    arguments = [torch.from_numpy(a) for a in (scores, grades, valid)]
    expected = (directed(scores, grades, kept) + directed(scores.T, grades.T, kept.T)) / 2
    assert ranking_loss(*arguments, margin).item() == pytest.approx(expected, abs=1e-5)


def test_invalid_pairs_have_no_say_and_no_gradient() -> None:
    scores = torch.randn(4, 6, requires_grad=True)
    grades = torch.randint(0, 3, (4, 6)).float()
    valid = torch.rand(4, 6) < 0.7
    ranking_loss(scores, grades, valid).backward()
    assert scores.grad is not None
    assert (scores.grad[~valid] == 0).all()
    assert scores.grad.isfinite().all()
    changed = torch.where(valid, scores.detach(), 50.0)
    assert torch.equal(
        ranking_loss(changed, torch.where(valid, grades, 3.0), valid), ranking_loss(scores.detach(), grades, valid)
    )


def test_equals_are_not_pushed_apart() -> None:
    scores = torch.tensor([[3.0, 1.0, -2.0]], requires_grad=True)
    grades = torch.tensor([[1.0, 1.0, 0.0]])
    ranking_loss(scores, grades).backward()
    assert scores.grad is not None
    assert (scores.grad[0, :2] < 0).all()  # both positives rise, whichever leads
    assert scores.grad[0, 2] > 0


@pytest.mark.parametrize("grades", [torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(0, 3)])
def test_nothing_to_rank_is_a_zero_that_can_be_trained_on(grades: torch.Tensor) -> None:
    scores = torch.randn(grades.shape, requires_grad=True)
    loss = ranking_loss(scores, grades)
    assert loss.item() == 0
    loss.backward()  # a batch may hold nothing else
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def test_large_scores_stay_finite() -> None:
    scores = torch.tensor([[100.0, -100.0], [-100.0, 100.0]])
    assert ranking_loss(scores, torch.eye(2)).item() == pytest.approx(0, abs=1e-6)
    assert ranking_loss(-scores, torch.eye(2)).item() == pytest.approx(200, rel=1e-6)
