"""Candidate features by hand; an untrained reranker keeps the fused order."""

import numpy as np
import torch

from fuserank.models.reranker import Reranker, candidate_features, feature_names

MODALITIES = ("text", "image")


def test_features_by_hand() -> None:
    fused = np.array([0.5, -0.2, 0.1], np.float32)
    lexical = np.array([3.0, 0.0, 1.5], np.float32)
    scores = np.array([[0.4, -np.inf], [0.1, 0.2], [np.nan, 0.3]], np.float32)
    mask = np.array([[True, False], [True, True], [False, True]])
    found = candidate_features(fused, lexical, scores, mask)
    names = feature_names(MODALITIES)
    assert names == ("fused", "lexical", "lexical_share", "text_score", "image_score", "text_missing", "image_missing")
    expected = [
        [0.5, np.log(4.0), 1.0, 0.4, 0, 0, 1],
        [-0.2, 0, 0, 0.1, 0.2, 0, 0],
        [0.1, np.log(2.5), 0.5, 0, 0.3, 1, 0],
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_no_words_in_common_and_no_candidates() -> None:
    nothing = candidate_features(np.zeros(2), np.zeros(2), np.zeros((2, 2)), np.ones((2, 2), bool))
    assert (nothing == 0).all()
    assert candidate_features(np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2), bool)).shape == (0, 7)


def test_untrained_it_keeps_the_fused_order() -> None:
    torch.manual_seed(0)
    reranker = Reranker(7)
    reranker.center.uniform_(-1, 1)
    reranker.spread.uniform_(0.5, 2)
    features = torch.randn(4, 9, 7)
    assert torch.equal(reranker(features).argsort(1), features[..., 0].argsort(1))
