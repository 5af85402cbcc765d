"""Retriever against a straight computation over the whole catalogue; batches, filters, exclusions and bad requests."""

import dataclasses

import numpy as np
import pytest

from fuserank.errors import FilterError
from fuserank.retrieval.pipeline import Candidates, Retriever, SearchRequest
from tests.fuserank.retrieval.generations import D, E, M, N


@pytest.fixture(scope="module")
def retriever(generation) -> Retriever:
    return Retriever(generation.catalogue)


def request(seed: int = 0, **changes) -> SearchRequest:
    random = np.random.default_rng(seed)
    values = {
        "text": "red wool",
        "query_vector": random.normal(size=E).astype(np.float32),
        "q_heads": random.normal(size=(M, D)).astype(np.float32),
        "candidates": 20,
    }
    return SearchRequest(**(values | changes))


def same(left: Candidates, right: Candidates) -> None:
    np.testing.assert_array_equal(left.rows, right.rows)
    np.testing.assert_array_equal(left.mask, right.mask)
    for name in ("fused", "lexical", "modalities"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-5, atol=1e-5)


def test_union_of_both_sides_with_every_score_exact(retriever):
    catalogue, asked = retriever.catalogue, request()
    found = retriever.search([asked])[0]
    fused = catalogue.vectors @ asked.query_vector
    near = set(np.argsort(-fused)[:20].tolist())
    worded, bm25 = catalogue.lexical_index.search(["red wool"], N)
    by_words = set(worded[0][:20].tolist())
    assert set(found.rows.tolist()) == near | by_words
    assert near - by_words
    assert by_words - near
    np.testing.assert_allclose(found.fused, fused[found.rows], rtol=1e-5, atol=1e-5)
    assert (np.diff(found.fused) <= 0).all()
    every = np.zeros(N, np.float32)
    every[worded[0][worded[0] >= 0]] = bm25[0][worded[0] >= 0]
    np.testing.assert_allclose(found.lexical, every[found.rows], rtol=1e-5)
    for place, row in enumerate(found.rows):
        for m in range(M):
            if catalogue.mask[row, m]:
                expected = catalogue.modality_vectors[row, m].astype(np.float64) @ asked.q_heads[m]
                assert found.modalities[place, m] == pytest.approx(expected, rel=1e-3, abs=1e-3)
            else:
                assert np.isneginf(found.modalities[place, m])
    np.testing.assert_array_equal(found.mask, catalogue.mask[found.rows])


def test_query_mask_leaves_modalities_out(retriever):
    only_second = np.arange(retriever.catalogue.mask.shape[1]) == 1
    found = retriever.search([request(q_mask=only_second)])[0]
    np.testing.assert_array_equal(found.mask, retriever.catalogue.mask[found.rows] & only_second)
    assert np.isneginf(found.modalities[:, ~only_second]).all()


def test_a_batch_answers_as_its_requests_alone(retriever):
    requests = [
        request(1),
        request(2, filter={"brand": "b1"}),
        request(3, text=None),
        request(4, query_vector=None),
        request(5, filter={"brand": "b1"}, exclude=[1, 8, 15]),
        request(6, candidates=3, q_heads=None),
        request(7, text=None, query_vector=None),
        request(8, filter={"brand": ["b1"]}, exclude=np.array([22])),
    ]
    for alone, together in zip(requests, retriever.search(requests), strict=True):
        same(retriever.search([alone])[0], together)


@pytest.mark.parametrize(
    "condition", [{"product_id": "p0007"}, {"brand": "b3"}, {"price": {"lt": 75}}, {"in_stock": True}]
)
def test_filters_come_before_ranking(retriever, condition):
    allowed = retriever.catalogue.filters.mask(condition)
    k = 60
    found = retriever.search([request(filter=condition, text=None, candidates=k)])[0]
    expected = np.flatnonzero(allowed)[np.argsort(-(retriever.catalogue.vectors @ request().query_vector)[allowed])][:k]
    np.testing.assert_array_equal(found.rows, expected)
    worded = retriever.search([request(filter=condition, candidates=k)])[0]
    assert allowed[worded.rows].all()


def test_excluded_rows_make_room_for_others(retriever):
    first = retriever.search([request(text=None)])[0].rows
    rest = retriever.search([request(text=None, exclude=first)])[0].rows
    assert len(rest) == 20
    longer = retriever.search([request(text=None, candidates=40)])[0].rows
    np.testing.assert_array_equal(np.concatenate([first, rest]), longer)
    everything = retriever.search([request(exclude=np.arange(N))])[0]
    assert len(everything) == 0
    assert everything.modalities.shape == (0, M)


def test_a_bad_filter_fails_its_own_request_only(retriever):
    deep: dict = {}
    for _ in range(50_000):
        deep = {"not": deep}
    bad, good, hostile = retriever.search([request(filter={"brnd": "b1"}), request(), request(filter=deep)])
    assert isinstance(bad.error, FilterError)
    assert "brand" in bad.error.hint
    assert len(bad) == 0
    assert good.error is None
    assert len(good) > 0
    assert isinstance(hostile.error, FilterError)
    while deep:  # Python frees a chain this deep recursively otherwise
        deep = deep["not"]


def test_by_vector(retriever):
    catalogue = retriever.catalogue
    rows, scores = retriever.by_vector(catalogue.vectors[5], 10, {"in_stock": True}, exclude=[5])
    allowed = catalogue.filters.mask({"in_stock": True})
    allowed[5] = False
    expected = catalogue.vectors @ catalogue.vectors[5]
    best = np.flatnonzero(allowed)[np.argsort(-expected[allowed])][:10]
    np.testing.assert_array_equal(rows, best)
    np.testing.assert_allclose(scores, expected[best], rtol=1e-5)
    with pytest.raises(FilterError):
        retriever.by_vector(catalogue.vectors[5], 10, {"nope": 1})


def test_no_request(retriever):
    assert retriever.search([]) == []


def test_a_deep_search_counts_more_and_hands_over_the_same(retriever, generation):
    catalogue = generation.catalogue
    random = np.random.default_rng(11)
    vector = random.normal(size=catalogue.vectors.shape[1]).astype(np.float32)
    condition, excluded = {"in_stock": True}, [3, 7, 11]
    shallow = SearchRequest("red wool", vector, filter=condition, candidates=20, exclude=excluded)
    deep = dataclasses.replace(shallow, deep=90)
    plain, counted = retriever.search([shallow, deep])
    np.testing.assert_array_equal(counted.rows, plain.rows)
    np.testing.assert_array_equal(counted.fused, plain.fused)
    np.testing.assert_array_equal(counted.lexical, plain.lexical)
    assert set(plain.every.tolist()) == set(plain.rows.tolist())
    allowed = catalogue.filters.mask(condition)
    allowed[excluded] = False
    near = np.argsort(-np.where(allowed, catalogue.vectors @ vector, -np.inf))[:90]
    worded = [
        row for row in catalogue.lexical_index.search(["red wool"], N)[0][0].tolist() if row >= 0 and allowed[row]
    ]
    assert set(counted.every.tolist()) == set(near.tolist()) | set(worded[:90])
    assert retriever.matching(deep) == allowed.sum()
    assert retriever.matching(SearchRequest(exclude=[1, 1])) == N - 1
    some = np.array([4, 0])
    np.testing.assert_array_equal(plain.take(some).rows, plain.rows[some])
