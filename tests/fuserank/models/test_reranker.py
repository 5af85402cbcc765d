"""Candidate features by hand; an untrained reranker keeps the fused order; what is masked is never read."""

import dataclasses

import numpy as np
import pytest
import torch

from fuserank.models.candidates import AFFINITY, BEHAVIOUR, candidate_features, feature_names
from fuserank.models.reranker import Context, Reranker

MODALITIES = ("text", "image")
B, K, F, M, D, E, T = 3, 7, 12, 2, 5, 6, 4


def context(seed: int = 0) -> Context:
    draw = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    present, known = randn(B, K, M) > 0, randn(B, T) > -0.3
    known[0] = False  # a user nothing is known of
    return Context(randn(B, D), randn(B, K, E), randn(B, K, M, D), present, randn(B, T, E), known)


def trained() -> Reranker:
    """Every weight away from zero, as after training."""
    torch.manual_seed(1)
    reranker = Reranker(F, M, D, E)
    with torch.no_grad():
        for parameter in reranker.parameters():
            parameter.normal_(0, 0.5)
    return reranker.eval()


def features() -> torch.Tensor:
    return torch.randn(B, K, F, generator=torch.Generator().manual_seed(2))


def test_features_by_hand() -> None:
    fused = np.array([0.5, -0.2, 0.1], np.float32)
    lexical = np.array([3.0, 0.0, 1.5], np.float32)
    scores = np.array([[0.4, -np.inf], [0.1, 0.2], [np.nan, 0.3]], np.float32)
    mask = np.array([[True, False], [True, True], [False, True]])
    behaviour, taste = np.arange(9.0).reshape(3, 3), np.array([[0.6, 0], [0.7, 0.8], [0, 0.9]])
    affinity = np.array([[-1.0, 0.1], [-2, 0.2], [-3, 0.3]])
    found = candidate_features(fused, lexical, scores, mask, behaviour, affinity, taste)
    names = feature_names(MODALITIES)
    first = ("retrieved", "lexical", "lexical_share", "text_score", "image_score", "text_missing", "image_missing")
    assert names == (*first, *BEHAVIOUR, *AFFINITY, "text_taste", "image_taste")
    expected = [
        [0.5, np.log(4.0), 1.0, 0.4, 0, 0, 1, 0, 1, 2, -1, 0.1, 0.6, 0],
        [-0.2, 0, 0, 0.1, 0.2, 0, 0, 3, 4, 5, -2, 0.2, 0.7, 0.8],
        [0.1, np.log(2.5), 0.5, 0, 0.3, 1, 0, 6, 7, 8, -3, 0.3, 0, 0.9],
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(candidate_features(fused, lexical, scores, mask)[:, 7:], np.zeros((3, 7)))


def test_no_words_in_common_and_no_candidates() -> None:
    nothing = candidate_features(np.zeros(2), np.zeros(2), np.zeros((2, 2)), np.ones((2, 2), bool))
    assert (nothing == 0).all()
    assert candidate_features(np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2), bool)).shape == (0, 14)


@pytest.mark.parametrize("reranker", [Reranker(F), Reranker(F, M, D, E)])
def test_untrained_it_keeps_the_fused_scores(reranker: Reranker) -> None:
    known = features()
    assert torch.equal(reranker(known, context()), known[..., 0])
    reranker.center.uniform_(-1, 1)
    reranker.spread.uniform_(0.5, 2)
    expected = (known[..., 0] - reranker.center[0]) / reranker.spread[0]  # the same order in other units
    torch.testing.assert_close(reranker(known, context()), expected)


def test_what_is_masked_is_never_read() -> None:
    reranker, known, before = trained(), features(), context()
    present, recent = before.present[..., None], before.recent_mask[..., None]
    for poison in (7.0, float("nan"), float("inf")):
        after = dataclasses.replace(
            before,
            products=torch.where(present, before.products, poison),
            recent=torch.where(recent, before.recent, poison),
        )
        assert torch.equal(reranker(known, before), reranker(known, after))
    moved = dataclasses.replace(before, recent=before.recent + recent.float())
    change = (reranker(known, moved) - reranker(known, before)).abs().amax(1)
    assert change[0] == 0, "this user's past is unknown"
    assert (change[1:] > 0).all()


def test_every_part_of_a_candidate_and_of_the_past_counts() -> None:
    reranker, known, before = trained(), features(), context()
    plain = reranker(known, before)
    for name in ("asked", "fused", "products", "recent"):
        after = dataclasses.replace(before, **{name: getattr(before, name) + 0.5})
        assert not torch.equal(reranker(known, after), plain), name


def test_candidates_do_not_touch_each_other() -> None:
    reranker, known, whole = trained(), features(), context()
    swapped = list(range(K))[::-1]
    turned = dataclasses.replace(
        whole, fused=whole.fused[:, swapped], products=whole.products[:, swapped], present=whole.present[:, swapped]
    )
    torch.testing.assert_close(reranker(known[:, swapped], turned), reranker(known, whole)[:, swapped])


def test_gradients_reach_every_weight() -> None:
    reranker = trained()
    reranker(features(), context()).square().sum().backward()
    assert [name for name, p in reranker.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
