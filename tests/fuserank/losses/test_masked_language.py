"""Which tokens are masked and how, and the loss of the chosen ones."""

import numpy as np
import pytest
import torch

from fuserank.losses.masked_language import mask_tokens, masked_language_loss

MASK, VOCABULARY = 4, 50


def test_shares() -> None:
    ids = torch.randint(5, VOCABULARY, (400, 50), generator=torch.Generator().manual_seed(0))
    special = torch.zeros_like(ids, dtype=torch.bool)
    special[:, 0] = special[:, 40:] = True
    corrupted, chosen = mask_tokens(
        ids, special, MASK, VOCABULARY, torch.rand(3, *ids.shape, generator=torch.Generator().manual_seed(1))
    )
    assert not chosen[special].any()
    assert torch.equal(corrupted[~chosen], ids[~chosen])
    count = int(chosen.sum())
    assert count / int((~special).sum()) == pytest.approx(0.15, abs=0.01)
    masked, kept = (corrupted == MASK) & chosen, (corrupted == ids) & chosen
    assert masked.sum() / count == pytest.approx(0.80 + 0.1 / VOCABULARY, abs=0.02)
    assert kept.sum() / count == pytest.approx(0.10 + 0.1 / VOCABULARY, abs=0.02)
    other = chosen & ~masked & ~kept
    assert other.sum() / count == pytest.approx(0.10, abs=0.02)
    assert len(corrupted[other].unique()) > 0.8 * VOCABULARY


def test_the_draws_decide() -> None:
    ids, special = torch.arange(5, 45).view(2, 20), torch.zeros(2, 20, dtype=torch.bool)
    draws = torch.full((3, 2, 20), 0.99)
    draws[0, 0, :4] = 0.1  # four tokens are chosen: one hidden, one at random, two stay
    draws[1, 0, :4] = torch.tensor([0.79, 0.95, 0.85, 0.8])
    draws[2, 0, 1] = 0.5
    corrupted, chosen = mask_tokens(ids, special, MASK, VOCABULARY, draws)
    assert chosen.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert corrupted[0, :5].tolist() == [MASK, 25, 7, 8, 9]
    assert torch.equal(corrupted[1], ids[1])


def test_loss_against_numpy() -> None:
    logits, targets = torch.randn(6, 9), torch.tensor([0, 8, 3, 3, 1, 5])
    values = logits.numpy().astype(np.float64)
    expected = np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in zip(values, targets, strict=True)])
    assert masked_language_loss(logits, targets).item() == pytest.approx(expected, abs=1e-5)
    assert masked_language_loss(logits, targets, 3).item() == pytest.approx(2 * expected, abs=1e-5)


def test_nothing_chosen() -> None:
    logits = torch.randn(0, 9, requires_grad=True)
    loss = masked_language_loss(logits, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
