"""The reranker finds planted signals that the fused order misses, and its measurement is honest."""

import numpy as np
import pytest
import torch

from fuserank.training.rerank import Lists, Part, _fit, fit_reranker, ndcg, pad_lists


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


def pages(seed: int, users: int = 60, taste: float = 2.0, hidden: float = 0.0) -> Lists:
    """Pages of clicks that follow the fused score, the second feature by `hidden` and the fifth by `taste`."""
    random = np.random.default_rng(seed)
    features = [random.normal(size=(8, 5)).astype(np.float32) for _ in range(3 * users)]
    clicked = [
        (f[:, 0] + hidden * f[:, 1] + taste * f[:, 4] + random.normal(size=8) > 1.5).astype(np.float32)
        for f in features
    ]
    return pad_lists(features, clicked, [c[c > 0] for c in clicked], [n // 3 for n in range(3 * users)])


PERSONAL = (False, False, False, False, True)


def test_what_tells_of_the_user_is_learnt_from_clicks_and_leaves_other_searches_alone() -> None:
    """Judgments that the fused score explains; clicks that follow taste: only the part about the user is kept."""
    lists = planted(2, 30)
    lists.features[..., 4] = 0  # judged for nobody in particular
    lists.features[..., 0] = lists.grades + 0.01 * lists.features[..., 0]
    reranker, summary = fit_reranker(lists, seed=0, steps=60, clicks=pages(0), personal=PERSONAL)
    assert (summary["relevance"], summary["personal"], summary["kept"], summary["attends"]) == (0, 1, 1, 0)
    assert reranker.used.tolist() == [1, 0, 0, 0, 1]
    assert summary["clicks_lift_low"] > 0.05
    fresh = pages(1)
    with torch.inference_mode():
        found, fused = (ndcg(scores, fresh) for scores in (reranker(fresh.features), fresh.features[..., 0]))
        assert torch.equal(
            reranker(lists.features).argsort(dim=1, stable=True), lists.features[..., 0].argsort(dim=1, stable=True)
        )
    assert np.nanmean(found - fused) == pytest.approx(
        summary["clicks_reranked_ndcg@10"] - summary["clicks_fused_ndcg@10"], abs=0.05
    )


def test_both_parts_are_kept_where_both_lift() -> None:
    lists = planted(0)
    lists.features[..., 4] = 0
    reranker, summary = fit_reranker(lists, seed=0, steps=60, clicks=pages(0, hidden=1), personal=PERSONAL)
    assert (summary["relevance"], summary["personal"]) == (1, 1)
    assert reranker.used.tolist() == [1] * 5
    assert summary["clicks_personal_ndcg@10"] > summary["clicks_relevance_ndcg@10"] + 0.05
    assert summary["reranked_ndcg@10"] == summary["personal_ndcg@10"]


def test_taste_that_clicks_do_not_follow_is_not_kept() -> None:
    lists = planted(2, 30)
    lists.features[..., 0] = lists.grades
    _, summary = fit_reranker(lists, seed=0, steps=60, clicks=pages(0, taste=0), personal=PERSONAL)
    assert (summary["personal"], summary["kept"]) == (0, 0)


def test_noise_shows_no_lift() -> None:
    """Features of pure noise: cross-validation must not report what fitting alone would show."""
    lists = planted(2, queries=12)
    lists.features = torch.randn(lists.features.shape, generator=torch.Generator().manual_seed(0))
    _, summary = fit_reranker(lists, seed=0, steps=60)
    overfitted = _fit([lists], 60, 0, Part(torch.ones(5, dtype=torch.bool)))
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
