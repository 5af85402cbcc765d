"""Every metric against a loop written from its definition, on random and adversarial inputs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import EvaluationError
from fuserank.evaluation.metrics import id_metrics, rank_metrics, rank_rows, ranking_metrics


def by_hand(ranked: list[float], judged: list[float], k: int, recall_k: int, relevant: float) -> dict[str, float]:
    """Plain loops over one query; `ranked` are the grades of the retrieved products in order."""

    def dcg(grades):
        return sum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))

    ideal = dcg(sorted(judged, reverse=True)[:k])
    total = sum(1 for grade in judged if grade >= relevant)
    first, hits, precisions = None, 0, 0.0
    for rank, grade in enumerate(ranked, start=1):
        if grade >= relevant:
            first = first or rank
            hits += 1
            precisions += hits / rank
    nan = float("nan")
    found = sum(1 for grade in ranked[:recall_k] if grade >= relevant)
    return {
        f"ndcg@{k}": dcg(ranked[:k]) / ideal if ideal > 0 else nan,
        f"recall@{recall_k}": found / total if total else nan,
        "mrr": (1 / first if first else 0.0) if total else nan,
        f"hit@{k}": float(any(grade >= relevant for grade in ranked[:k])) if total else nan,
        "map": precisions / total if total else nan,
    }


def assert_equal(got: dict[str, np.ndarray], row: int, want: dict[str, float]) -> None:
    assert set(got) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(got[name][row], value, rtol=1e-12, err_msg=name)


grades_strategy = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 3.0])
scores_strategy = st.sampled_from([-math.inf, -1.0, 0.0, 0.0, 0.25, 1.0, 1.0, 7.5])


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    q=st.integers(1, 4),
    n=st.integers(1, 14),
    k=st.integers(1, 16),
    relevant=st.sampled_from([1.0, 2.0]),
)
def test_rank_metrics_equal_loops(data, q, n, k, relevant):
    matrix = st.lists(st.lists(scores_strategy, min_size=n, max_size=n), min_size=q, max_size=q)
    scores = np.array(data.draw(matrix))
    grades = np.array(data.draw(st.lists(st.lists(grades_strategy, min_size=n, max_size=n), min_size=q, max_size=q)))
    got = rank_metrics(scores, grades, k, k + 2, relevant)
    for row in range(q):
        order = sorted((i for i in range(n) if scores[row, i] > -math.inf), key=lambda i: (-scores[row, i], i))
        ranked = [grades[row, i] for i in order]
        assert_equal(got, row, by_hand(ranked, list(grades[row]), k, k + 2, relevant))


def test_large_random_with_defaults():
    random = np.random.default_rng(3)
    scores = random.normal(size=(20, 400)).astype(np.float32)
    grades = random.choice([0, 0, 0, 0, 1, 2], size=scores.shape).astype(np.float32)
    got = rank_metrics(scores, grades)
    for row in range(20):
        order = sorted(range(400), key=lambda i: (-scores[row, i], i))
        assert_equal(
            got, row, by_hand([float(grades[row, i]) for i in order], list(map(float, grades[row])), 10, 100, 1.0)
        )


def test_ties_rank_by_row_order_for_every_dtype():
    for dtype in (np.float16, np.float32, np.float64, np.int64):
        scores = np.array([[1, 2, 1, 2, 1, 1]], dtype=dtype)
        assert rank_rows(scores).tolist() == [[1, 3, 0, 2, 4, 5]]


def test_minus_infinity_is_not_retrieved():
    scores = np.array([[-np.inf, -np.inf, 0.5]])
    got = rank_metrics(scores, np.array([[2.0, 0.0, 0.0]]), k=3, recall_k=3)
    assert {name: value.tolist() for name, value in got.items()} == {name: [0.0] for name in got}


def test_query_without_relevant_product_is_nan_everywhere():
    got = rank_metrics(np.ones((2, 3)), np.array([[0.0, 0, 0], [0, 1, 0]]))
    assert all(np.isnan(values[0]) and not np.isnan(values[1]) for values in got.values())


def test_more_relevant_than_k():
    got = rank_metrics(np.arange(30.0)[None], np.ones((1, 30)), k=10, recall_k=10)
    assert got["ndcg@10"][0] == 1.0
    assert got["recall@10"][0] == pytest.approx(10 / 30)


def test_ideal_counts_products_that_were_not_retrieved():
    got = id_metrics([["a"]], [{"a": 1.0, "b": 2.0}])
    ideal = (2**2 - 1) + (2**1 - 1) / math.log2(3)
    assert got["ndcg@10"][0] == pytest.approx(1 / ideal)
    assert got["recall@100"][0] == 0.5


def test_id_lists_equal_loops_and_take_empty_results():
    ranked = [["a", "x", "b"], [], ["z"]]
    judged = [{"a": 2.0, "b": 1.0, "c": 3.0}, {"a": 1.0}, {}]
    got = id_metrics(ranked, judged)
    for row, (ids, known) in enumerate(zip(ranked, judged, strict=True)):
        want = by_hand([known.get(i, 0.0) for i in ids], list(known.values()), 10, 100, 1.0)
        assert_equal(got, row, want)
    assert id_metrics([[]], [{"a": 1.0}])["mrr"].tolist() == [0.0]


def test_refusals():
    with pytest.raises(EvaluationError, match="NaN scores"):
        rank_metrics(np.array([[1.0, np.nan]]), np.ones((1, 2)))
    with pytest.raises(EvaluationError, match="same product twice"):
        id_metrics([["a", "b", "a"]], [{"a": 1.0}])
    with pytest.raises(EvaluationError, match="same product twice"):
        ranking_metrics(np.array([[0, 1, 0]]), np.ones((1, 3)))
    with pytest.raises(EvaluationError, match="grades"):
        rank_metrics(np.ones((1, 2)), np.array([[1.0, -1.0]]))
    with pytest.raises(EvaluationError, match="grades"):
        rank_metrics(np.ones((1, 2)), np.array([[1.0, np.nan]]))
    with pytest.raises(EvaluationError, match="differ in shape"):
        rank_metrics(np.ones((1, 2)), np.ones((1, 3)))
    with pytest.raises(EvaluationError, match="rankings"):
        id_metrics([["a"]], [])
