"""Keyed noise: uniform, independent of neighbours, and dropout that follows from it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from fuserank.training.dropout import SeededDropout
from fuserank.training.noise import kept, keys, uniform


def test_draws_are_uniform_and_unrelated() -> None:
    draws = uniform(keys(torch.arange(400), 1, 2, 3), 0, 500).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, 20, (0, 1))
    expected = draws.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # the 99.9 % point of chi-squared with 19 degrees
    for one, two in ((draws[:-1], draws[1:]), (draws[:, :-1], draws[:, 1:]), (draws[:, :-2], draws[:, 2:])):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.01
    other = uniform(keys(torch.arange(400), 1, 2, 3), 1, 500).numpy()
    assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 0.01
    later = uniform(keys(torch.arange(400), 1, 2, 4), 0, 500).numpy()
    assert abs(np.corrcoef(draws.ravel(), later.ravel())[0, 1]) < 0.01


def test_a_row_draws_the_same_beside_others() -> None:
    together = uniform(keys(torch.tensor([5, 9, 700_000]), 3), 2, 17)
    assert torch.equal(together[1:2], uniform(keys(torch.tensor([9]), 3), 2, 17))
    assert len({float(x) for x in uniform(keys(torch.arange(2000), 7), 0, 1)[:, 0]}) > 1990


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_how_much_stays(chance: float) -> None:
    mask = kept(keys(torch.arange(64), 0), 1, torch.Size((64, 33, 25)), chance)
    assert mask.float().mean().item() == pytest.approx(1 - chance, abs=0.006)
    assert mask.float().mean((1, 2)).std() < 0.03


def test_dropout_follows_the_keys_and_keeps_the_mean() -> None:
    rows, values = keys(torch.arange(40), 0), torch.ones(40, 300)
    with SeededDropout(rows):
        first, second = F.dropout(values, 0.3), F.dropout(values, 0.3)
    with SeededDropout(rows):
        again = nn.Dropout(0.3)(values)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)  # the next layer draws anew
    assert first.mean().item() == pytest.approx(1, abs=0.02)
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-4)
    with SeededDropout(rows[10:20]):
        assert torch.equal(F.dropout(values[10:20], 0.3), first[10:20])
        assert torch.equal(F.dropout(values[:10], 0.3, training=False), values[:10])


def test_attention_with_dropout_is_attention() -> None:
    query, key, value = torch.randn(3, 4, 2, 6, 8).unbind(0)
    bias = torch.randn(4, 1, 6, 6)
    scores = (query @ key.transpose(-1, -2) / 8**0.5 + bias).softmax(-1)
    with SeededDropout(keys(torch.arange(4), 0)):
        found = F.scaled_dot_product_attention(query, key, value, bias, 0.4)
    with SeededDropout(keys(torch.arange(4), 0)):
        dropped = F.dropout(scores, 0.4)
    assert torch.allclose(found, dropped @ value, atol=1e-6)
    with SeededDropout(keys(torch.arange(4), 0)):
        causal = F.scaled_dot_product_attention(query, key, value, dropout_p=1e-9, is_causal=True)
    assert torch.allclose(causal, F.scaled_dot_product_attention(query, key, value, is_causal=True), atol=1e-5)


def test_a_whole_model_drops_by_row() -> None:
    torch.manual_seed(0)
    numbers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=50, attention_probs_dropout_prob=0.2, **numbers)).train()
    ids, rows = torch.randint(0, 50, (6, 7)), keys(torch.arange(6), 4)
    with SeededDropout(rows):
        whole = model(ids).last_hidden_state
    with SeededDropout(rows[2:5]):
        part = model(ids[2:5]).last_hidden_state
    assert torch.allclose(part, whole[2:5], atol=1e-5)
    assert not torch.allclose(model(ids).last_hidden_state[2:5], part, atol=1e-2)
