"""The softmax over a sample, corrected by each product's chance to be in it, estimates the softmax over all."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fuserank.losses.next_item import log_inclusion, next_item_loss


def inputs(products: int = 40, users: int = 3, events: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(products, 6, generator=generator)
    asked = torch.randn(users, events, 6, generator=generator)
    targets = torch.randint(0, products, (users, events), generator=generator)
    mask = torch.arange(events) < torch.tensor([4, 2, 0])[:, None]
    return asked, vectors, targets, mask


def test_it_is_the_cross_entropy_of_the_places_with_a_next_event() -> None:
    asked, vectors, targets, mask = inputs()
    found = []
    for user, event in np.argwhere(mask.numpy()):
        scores = 2.0 * (vectors.numpy() @ asked[user, event].numpy())
        found.append(np.log(np.exp(scores).sum()) - scores[targets[user, event]])
    assert next_item_loss(asked, vectors, targets, mask, 2.0).item() == pytest.approx(np.mean(found), rel=1e-5)
    assert next_item_loss(asked, vectors, targets, torch.zeros_like(mask)).item() == 0


def test_the_chance_to_be_drawn_is_what_is_counted() -> None:
    random, share, drawn, sampled = np.random.default_rng(1), np.array([0.5, 0.2, 0.1, 0.1, 0.1, 0.0]), 3, 2
    seen = np.zeros(6)
    for _ in range(20_000):
        seen[np.union1d(random.choice(6, drawn, p=share), random.integers(0, 6, sampled))] += 1
    found = log_inclusion(torch.tensor(share, dtype=torch.float32), drawn, sampled, 6).exp().numpy()
    np.testing.assert_allclose(found, seen / 20_000, atol=0.012)


def test_a_corrected_sample_estimates_the_whole_sum() -> None:
    """The mean over samples of Σ exp(score − log chance) is the sum over all products."""
    random = np.random.default_rng(2)
    scores, sampled = random.normal(size=30), 10
    chance = log_inclusion(torch.zeros(30), 0, sampled, 30).numpy()
    sums = [
        np.exp(scores[picked] - chance[picked]).sum()
        for picked in (np.unique(random.integers(0, 30, sampled)) for _ in range(4000))
    ]
    assert np.mean(sums) == pytest.approx(np.exp(scores).sum(), rel=0.02)
