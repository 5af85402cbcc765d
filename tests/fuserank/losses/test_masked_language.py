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
    corrupted, chosen = mask_tokens(ids, special, MASK, VOCABULARY, torch.Generator().manual_seed(1))
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


def test_the_generator_decides() -> None:
    ids, special = torch.arange(5, 45).view(2, 20), torch.zeros(2, 20, dtype=torch.bool)
    draws = [mask_tokens(ids, special, MASK, VOCABULARY, torch.Generator().manual_seed(s), 0.5)[0] for s in (7, 7, 8)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_loss_against_numpy() -> None:
    logits, targets = torch.randn(6, 9), torch.tensor([0, 8, 3, 3, 1, 5])
    values = logits.numpy().astype(np.float64)
    expected = np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in zip(values, targets, strict=True)])
    assert masked_language_loss(logits, targets).item() == pytest.approx(expected, abs=1e-5)


def test_nothing_chosen() -> None:
    logits = torch.randn(0, 9, requires_grad=True)
    loss = masked_language_loss(logits, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
