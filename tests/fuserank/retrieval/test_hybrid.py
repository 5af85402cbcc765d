"""Vectors and words in one order: against sums and reciprocal ranks by hand, through the retriever, cut short."""

import dataclasses

import numpy as np
import pytest

from fuserank.retrieval.generation import Generation
from fuserank.retrieval.hybrid import Hybrid
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import placed
from tests.fuserank.retrieval.generations import E

FUSED = np.array([0.9, 0.5, 0.5, 0.1], np.float32)
LEXICAL = np.array([0.0, 2.0, 8.0, 4.0], np.float32)


def test_scores_by_hand():
    assert Hybrid().scores(FUSED, LEXICAL) is FUSED
    np.testing.assert_allclose(Hybrid("linear", 0.4).scores(FUSED, LEXICAL), [0.9, 0.6, 0.9, 0.3], rtol=1e-6)
    by_hand = [1 / 61, 1 / 62 + 2 / 63, 1 / 63 + 2 / 61, 1 / 64 + 2 / 62]
    np.testing.assert_allclose(Hybrid("rrf", 2.0).scores(FUSED, LEXICAL), by_hand, rtol=1e-6)
    nothing = np.zeros(4, np.float32)
    np.testing.assert_array_equal(Hybrid("linear", 3.0).scores(FUSED, nothing), FUSED)
    assert len(Hybrid("rrf", 1.0).scores(nothing[:0], nothing[:0])) == 0
    assert Hybrid.of({"hybrid": {"kind": "rrf", "weight": 0.5}}) == Hybrid("rrf", 0.5)
    assert Hybrid.of({}) == Hybrid()


@pytest.mark.parametrize("hybrid", [Hybrid(), Hybrid("linear", 0.7), Hybrid("rrf", 1.0)])
def test_candidates_come_in_that_order_and_carry_both_scores(generation: Generation, hybrid: Hybrid):
    vector = np.random.default_rng(1).normal(size=E).astype(np.float32)
    for text in ("red boot", None):
        request = SearchRequest(text, vector, candidates=12)
        (found,) = Retriever(generation.catalogue, hybrid).search([request])
        (plain,) = Retriever(generation.catalogue).search([request])
        assert sorted(found.rows) == sorted(plain.rows)
        place = {row: i for i, row in enumerate(plain.rows.tolist())}
        same = [place[row] for row in found.rows.tolist()]
        np.testing.assert_array_equal(found.fused, plain.fused[same])
        np.testing.assert_array_equal(found.lexical, plain.lexical[same])
        by_row = np.argsort(found.rows)
        expected = hybrid.scores(found.fused[by_row], found.lexical[by_row]) if text else found.fused[by_row]
        np.testing.assert_allclose(found.score[by_row], expected, rtol=1e-6)
        assert (np.diff(found.score) <= 0).all()
        half = found.first(5)
        for field in dataclasses.fields(half):
            if field.name not in ("error", "every", "corrected"):
                np.testing.assert_array_equal(getattr(half, field.name), getattr(found, field.name)[:5])


def test_what_the_reranker_does_not_see_stays_below_in_its_order():
    score = np.array([5.0, 4.0, 3.0, 2.0, 2.0], np.float32)
    final = placed(score, np.array([-1.0, 7.0], np.float32))
    np.testing.assert_array_equal(np.argsort(-final, kind="stable"), [1, 0, 2, 3, 4])
    assert final[2] == -1.0 + (3.0 - 4.0)
    np.testing.assert_array_equal(placed(score, score[::-1]), score[::-1])
    np.testing.assert_array_equal(placed(score, score[:0]), score)
