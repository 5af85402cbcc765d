"""The listwise losses against NumPy, term by term."""

import numpy as np
import pytest
import torch

from fuserank.losses.listwise import click_gains, listwise_loss, weighted_listwise_loss


def by_hand(scores: np.ndarray, gains: np.ndarray, mask: np.ndarray) -> float:
    losses = []
    for row in range(len(scores)):
        s, g = scores[row][mask[row]].astype(float), gains[row][mask[row]].astype(float)
        if g.sum() > 0:
            chance = np.exp(s) / np.exp(s).sum()
            losses.append(-sum(gain / g.sum() * np.log(p) for gain, p in zip(g, chance, strict=True) if gain))
    return float(np.mean(losses)) if losses else 0.0


def test_against_numpy() -> None:
    random = np.random.default_rng(0)
    scores, mask = random.normal(size=(6, 9)).astype(np.float32), random.random((6, 9)) < 0.7
    grades = random.integers(0, 4, (6, 9)).astype(np.float32)
    grades[2] = 0  # nothing relevant
    arrays = [torch.from_numpy(a) for a in (scores, grades, mask)]
    assert float(listwise_loss(*arrays)) == pytest.approx(by_hand(scores, 2**grades - 1, mask), rel=1e-5)
    gains = random.exponential(size=(6, 9)).astype(np.float32)
    found = weighted_listwise_loss(arrays[0], torch.from_numpy(gains), arrays[2])
    assert float(found) == pytest.approx(by_hand(scores, gains, mask), rel=1e-5)


def test_nothing_clicked_is_no_loss() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    loss = weighted_listwise_loss(scores, torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def test_click_gains_by_hand() -> None:
    clicked = torch.tensor([1.0, 0.0, 1.0, 1.0])
    found = click_gains(clicked, torch.tensor([1.0, 0.5, 0.25, 0.01]), cap=10)
    assert found.tolist() == [1.0, 0.0, 4.0, 10.0]
    assert click_gains(torch.zeros(1), torch.tensor([float("nan")])).tolist() == [0.0]


def test_weighed_clicks_recover_relevance_that_position_hides() -> None:
    """Two equally good products, one seen four times as often: plain clicks favour it, weighed ones do not."""
    random = np.random.default_rng(1)
    seen = np.array([0.8, 0.2])
    clicks = torch.from_numpy((random.random((4000, 2)) < seen * 0.5).astype(np.float32))
    for gains, gap in ((clicks, 1.0), (click_gains(clicks, torch.tensor(seen)), 0.0)):
        scores = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([scores], lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            logs = scores.log_softmax(0)
            (-(gains * logs).sum(1)).mean().backward()
            optimizer.step()
        found = float((scores[0] - scores[1]).detach())
        assert found > gap if gap else abs(found) < 0.15
