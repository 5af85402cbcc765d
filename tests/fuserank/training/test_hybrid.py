"""The weight of words is found where they help, and is 0 where they do not or nothing can be told."""

import numpy as np
import torch

from fuserank.models.candidates import feature_names
from fuserank.training.hybrid import SCORE, SHARE, fit_hybrid
from fuserank.training.rerank import Lists, ndcg, pad_lists


def lists(queries: int, words: float, seed: int = 0) -> Lists:
    """Graded by the fused score, by `words` times the word share, and by chance."""
    random = np.random.default_rng(seed)
    features, grades = [], []
    for _ in range(queries):
        one = np.zeros((30, len(feature_names(("text",)))), np.float32)
        one[:, SCORE] = random.normal(size=30)
        one[:, SHARE] = random.random(30)
        truth = one[:, SCORE] + words * one[:, SHARE] + 0.3 * random.normal(size=30)
        features.append(one)
        grades.append(np.digitize(truth, np.quantile(truth, [0.7, 0.9])).astype(np.float32))
    return pad_lists(features, grades, [g[g > 0] for g in grades], list(range(queries)))


def test_words_that_help_get_their_weight():
    found = lists(60, 4.0)
    weight, figures = fit_hybrid(found, 0)
    assert 2 < weight < 7
    score, share = found.features[..., SCORE], found.features[..., SHARE]
    plain, both = (ndcg(score + w * share, found).mean() for w in (0.0, weight))
    assert figures["vectors_ndcg@10"] == plain
    assert plain + 0.1 < figures["hybrid_ndcg@10"] <= both + 1e-9  # cross-validated: never above the best in sight
    assert 0 < figures["hybrid_lift_low"] < figures["hybrid_ndcg@10"] - plain < figures["hybrid_lift_high"]


def test_words_that_say_nothing_get_none():
    weight, figures = fit_hybrid(lists(60, 0.0), 0)
    assert weight == figures["hybrid_weight"] == 0
    assert figures["hybrid_lift_low"] <= 0


def test_nine_queries_are_too_few_to_tell():
    assert fit_hybrid(lists(9, 4.0), 0) == (0.0, {"hybrid_weight": 0.0})


def test_padding_counts_for_nothing():
    found = lists(20, 4.0)
    longer = Lists(
        torch.nn.functional.pad(found.features, (0, 0, 0, 7), value=99.0),
        torch.nn.functional.pad(found.grades, (0, 7), value=3.0),
        torch.nn.functional.pad(found.mask, (0, 7), value=False),
        found.judged,
        found.owner,
    )
    assert fit_hybrid(longer, 0) == fit_hybrid(found, 0)
