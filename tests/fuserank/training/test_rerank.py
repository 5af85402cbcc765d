"""The reranker finds planted signals that the fused order misses, and its measurement is honest."""

import numpy as np
import pytest
import torch

from fuserank.training.rerank import Lists, _fit, fit_reranker, ndcg, pad_lists


def planted(seed: int, queries: int = 40, signal: float = 1.0) -> Lists:
    """Grade 2 where the second feature is high; the first, the fused score, knows little of it."""
    random = np.random.default_rng(seed)
    features, grades = [], []
    for _ in range(queries):
        count = int(random.integers(8, 20))
        found = random.normal(size=(count, 5)).astype(np.float32)
        hidden = signal * found[:, 1] + 0.3 * found[:, 0] + (1 - signal) * random.normal(size=count)
        grades.append(np.where(hidden >= np.sort(hidden)[-3], 2.0, 0.0).astype(np.float32))
        features.append(found)
    return pad_lists(features, grades, [g[g > 0] for g in grades], list(range(queries)))


def test_it_beats_the_fused_order() -> None:
    reranker, summary = fit_reranker(planted(0), seed=0, steps=60)
    assert summary["reranked_ndcg@10"] > summary["fused_ndcg@10"] + 0.2
    fresh = planted(1)
    with torch.inference_mode():
        found = ndcg(reranker(fresh.features), fresh).mean()
    assert found > ndcg(fresh.features[..., 0], fresh).mean() + 0.2
    assert found == pytest.approx(summary["reranked_ndcg@10"], abs=0.1)


def test_without_a_lift_it_keeps_the_fused_order() -> None:
    """A perfect fused score among noise: fitting cannot better it, so nothing is reordered."""
    lists = planted(2, queries=12)
    lists.features[..., 0] = lists.grades
    lists.features[..., 1:] = torch.randn(lists.features[..., 1:].shape, generator=torch.Generator().manual_seed(0))
    reranker, summary = fit_reranker(lists, seed=0, steps=60)
    assert summary["fused_ndcg@10"] == pytest.approx(1)
    assert summary["reranked_ndcg@10"] <= 1
    with torch.inference_mode():
        found = reranker(lists.features).argsort(dim=1, stable=True)
    assert torch.equal(found, lists.features[..., 0].argsort(dim=1, stable=True))


def test_a_lift_that_may_be_chance_is_not_kept() -> None:
    """Cross-validation shows +.06 on 16 queries, with an interval that holds 0: the fused order stays."""
    lists = planted(1, queries=16, signal=0.25)
    reranker, summary = fit_reranker(lists, seed=0, steps=40)
    assert summary["reranked_ndcg@10"] > summary["fused_ndcg@10"] + 0.05
    assert summary["lift_low"] < 0 < summary["lift_high"]
    assert summary["kept"] == 0
    assert (reranker.linear.weight == 0).all()
    assert fit_reranker(planted(0), seed=0, steps=60)[1]["kept"] == 1


def test_noise_shows_no_lift() -> None:
    """Features of pure noise: cross-validation must not report what fitting alone would show."""
    lists = planted(2, queries=12)
    lists.features = torch.randn(lists.features.shape, generator=torch.Generator().manual_seed(0))
    _, summary = fit_reranker(lists, seed=0, steps=60)
    overfitted = _fit([lists], 60, 0)
    with torch.inference_mode():
        fitted = ndcg(overfitted(lists.features), lists).mean()
    assert summary["reranked_ndcg@10"] < fitted - 0.05
    assert summary["reranked_ndcg@10"] < summary["fused_ndcg@10"] + 0.12


def test_the_seed_decides() -> None:
    one, two = (fit_reranker(planted(0, 12), seed=3, steps=15) for _ in range(2))
    assert one[1] == two[1]
    assert all(torch.equal(a, b) for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True))


def test_lists_of_one_owner_stay_on_one_side() -> None:
    """Each query twice, the second time with the grade itself as a feature: a leak would show as a perfect score."""
    lists = planted(4, 12)
    twice = Lists(
        torch.cat([lists.features] * 2),
        torch.cat([lists.grades] * 2),
        torch.cat([lists.mask] * 2),
        lists.judged * 2,
        np.concatenate([lists.owner] * 2),
    )
    assert fit_reranker(twice, seed=0, steps=15)[1]["fused_ndcg@10"] == pytest.approx(
        fit_reranker(lists, seed=0, steps=15)[1]["fused_ndcg@10"]
    )
    part = twice.part(np.array([0, 12]))
    assert part.owner[0] == part.owner[1]


def test_few_queries_and_one_candidate() -> None:
    lists = pad_lists([np.ones((1, 3), np.float32)], [np.ones(1, np.float32)], [np.ones(1)], [0])
    reranker, summary = fit_reranker(lists, seed=0, steps=3)
    assert set(summary) == {"fused_ndcg@10"}  # too few queries to cross-validate
    assert (reranker.linear.weight == 0).all()  # so it is not fitted either
    assert reranker(lists.features).isfinite().all()


def test_ndcg_by_hand() -> None:
    lists = pad_lists(
        [np.zeros((3, 1), np.float32)], [np.array([0.0, 2.0, 1.0], np.float32)], [np.array([2.0, 1.0, 1.0])], [0]
    )
    found = ndcg(torch.tensor([[0.3, 0.2, 0.1]]), lists)
    ideal = 3 + 1 / np.log2(3) + 1 / 2
    assert found[0] == pytest.approx((0 + 3 / np.log2(3) + 1 / 2) / ideal)
