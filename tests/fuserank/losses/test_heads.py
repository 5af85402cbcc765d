"""Next item, listwise and weighted sum against loops."""

import math

import numpy as np
import pytest
import torch

from fuserank.losses.listwise import listwise_loss
from fuserank.losses.next_item import next_item_loss
from fuserank.losses.weighted import weighted_sum


def test_next_item() -> None:
    random = np.random.default_rng(0)
    users, products = random.normal(size=(3, 4, 5)), random.normal(size=(7, 5))
    targets, mask, scale = random.integers(0, 7, (3, 4)), random.random((3, 4)) < 0.6, 1.7
    losses = []
    for u, t in np.argwhere(mask):
        scores = [scale * float(users[u, t] @ p) for p in products]
        losses.append(math.log(sum(map(math.exp, scores))) - scores[targets[u, t]])
    arrays = [torch.from_numpy(a) for a in (users, products, targets, mask)]
    assert next_item_loss(*arrays, scale).item() == pytest.approx(np.mean(losses), abs=1e-5)
    nothing = next_item_loss(arrays[0].requires_grad_(), *arrays[1:3], torch.zeros(3, 4, dtype=torch.bool), scale)
    assert nothing.item() == 0
    nothing.backward()


def test_listwise() -> None:
    random = np.random.default_rng(1)
    scores, mask = random.normal(size=(4, 6)), random.random((4, 6)) < 0.7
    grades = random.integers(0, 4, (4, 6)).astype(float)
    grades[1] = 0  # no relevant candidate: no say
    losses = []
    for q in range(4):
        kept = [k for k in range(6) if mask[q, k]]
        gains = [2 ** grades[q, k] - 1 for k in kept]
        if sum(gains):
            norm = math.log(sum(math.exp(scores[q, k]) for k in kept))
            losses.append(-sum(g / sum(gains) * (scores[q, k] - norm) for g, k in zip(gains, kept, strict=True)))
    arrays = [torch.from_numpy(a) for a in (scores, grades, mask)]
    assert listwise_loss(*arrays).item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_listwise_ignores_what_is_masked() -> None:
    scores = torch.randn(3, 5, requires_grad=True)
    grades, mask = torch.ones(3, 5), torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:], mask[2] = False, False
    loss = listwise_loss(scores, grades, mask)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[~mask] == 0).all()
    assert torch.equal(listwise_loss(scores.detach().masked_fill(~mask, 1e4), grades, mask), loss.detach())
    assert listwise_loss(scores, torch.zeros(3, 5), mask).item() == 0


def test_weighted_sum() -> None:
    losses = {
        "text": torch.tensor(2.0, requires_grad=True),
        "fused": torch.tensor(3.0),
        "price": torch.tensor(float("nan")),
    }
    total = weighted_sum(losses, {"text": 0.5, "fused": 2.0, "price": 0.0, "audio": 9.0})
    assert total.item() == pytest.approx(7.0)  # switched off is left out, even where it is no number
    total.backward()
    assert losses["text"].grad is not None
    assert losses["text"].grad.item() == pytest.approx(0.5)
    with pytest.raises(KeyError):
        weighted_sum(losses, {"text": 1.0, "fused": 1.0})
    for nothing in ({}, {"price": losses["price"]}):
        with pytest.raises(ValueError, match="weight above 0"):
            weighted_sum(nothing, {"price": 0.0})
