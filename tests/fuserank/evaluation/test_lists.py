"""Coverage, novelty, diversity and calibration against loops written from their definitions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import EvaluationError
from fuserank.evaluation.lists import calibration_at_k, coverage_at_k, diversity_at_k, novelty_at_k


def draw_lists(data, products: int) -> np.ndarray:
    """Rankings without repeats, some short, some empty: [Q, R] with −1 where unfilled."""
    queries, ranks = data.draw(st.integers(1, 4)), data.draw(st.integers(0, products))
    order = np.full((queries, ranks), -1)
    for row in range(queries):
        found = data.draw(st.permutations(range(products)))[: data.draw(st.integers(0, ranks))]
        order[row, : len(found)] = found
    return order


def lists_of(order: np.ndarray, k: int) -> list[list[int]]:
    return [[row for row in rows[:k] if row >= 0] for rows in order.tolist()]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n=st.integers(1, 9), k=st.integers(1, 10), seed=st.integers(0, 99))
def test_each_equals_a_loop(data, n, k, seed):
    order, random = draw_lists(data, n), np.random.default_rng(seed)
    counts = random.choice([0, 0, 1, 5, 1000], size=n)
    vectors = random.normal(size=(n, 3)) * random.choice([0.0, 1.0, 1e6], size=(n, 1))
    categories = random.choice([0.0, 0.0, 1.0], size=(n, 3))
    wanted = random.choice([0.0, 0.0, 2.0, 3.5], size=(len(order), 3))
    lists = lists_of(order, k)
    assert coverage_at_k(order, n, k) == len({row for rows in lists for row in rows}) / n

    share = [(count + 1) / (sum(counts) + n) for count in counts]
    want = [mean([-math.log2(share[row]) for row in rows]) for rows in lists]
    np.testing.assert_allclose(novelty_at_k(order, counts, k), want)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        size = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
        return float(a @ b) / size if size else 0.0

    pairs = [[(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]] for rows in lists]
    want = [mean([1 - cosine(vectors[a], vectors[b]) for a, b in row]) for row in pairs]
    np.testing.assert_allclose(diversity_at_k(order, vectors, k), want, atol=1e-12)

    for row, rows in enumerate(lists):
        got = calibration_at_k(order, wanted, categories, k)[row]
        p, q = Counter(), Counter()
        for name in range(3):
            p[name] = float(wanted[row, name])
            q[name] = float(sum(categories[product, name] for product in rows))
        if not p.total() or not q.total():
            assert math.isnan(got)
            continue
        want_kl = 0.0
        for name in range(3):
            mine, theirs = p[name] / p.total(), q[name] / q.total()
            if mine:
                want_kl += mine * math.log(mine / (0.99 * theirs + 0.01 * mine))
        assert got == pytest.approx(want_kl, abs=1e-12)


def test_known_values():
    order = np.array([[0, 1], [1, 0]])
    assert novelty_at_k(order, np.array([3, 3]), 2).tolist() == [1.0, 1.0]  # one of two alike: a bit each
    assert diversity_at_k(order, np.array([[1.0, 0], [0, 2.0]]), 2).tolist() == [1.0, 1.0]
    same = np.array([[1.0, 0.0], [0.0, 1.0]])
    perfect, wrong = calibration_at_k(order, np.array([[5.0, 5.0], [1.0, 0.0]]), same, 2)
    assert perfect == pytest.approx(0.0)
    assert wrong == pytest.approx(-math.log(0.99 * 0.5 + 0.01))
    missed = calibration_at_k(np.array([[0]]), np.array([[0.0, 1.0]]), same, 1)
    assert missed[0] == pytest.approx(-math.log(0.01))  # the smoothing keeps it finite


def test_empty_lists_and_catalogues_have_no_value():
    empty = np.full((2, 3), -1)
    assert coverage_at_k(empty, 5) == 0.0
    assert math.isnan(coverage_at_k(empty, 0))
    assert np.isnan(novelty_at_k(empty, np.ones(5))).all()
    assert np.isnan(novelty_at_k(empty, np.ones(0))).all()
    assert np.isnan(diversity_at_k(np.array([[1, -1]]), np.eye(2))).all()
    assert np.isnan(calibration_at_k(empty, np.ones((2, 2)), np.ones((5, 2)))).all()


def test_refusals():
    order = np.array([[0, 1]])
    for bad in (np.nan, np.inf):
        with pytest.raises(EvaluationError, match="NaN or infinities"):
            novelty_at_k(order, np.array([1.0, bad]))
        with pytest.raises(EvaluationError, match="vectors hold NaN"):
            diversity_at_k(order, np.array([[1.0], [bad]]))
        with pytest.raises(EvaluationError, match="wanted categories"):
            calibration_at_k(order, np.array([[bad]]), np.ones((2, 1)))
    with pytest.raises(EvaluationError, match="≥ 0"):
        novelty_at_k(order, np.array([1.0, -1.0]))
    with pytest.raises(EvaluationError, match="≥ 0"):
        calibration_at_k(order, np.array([[1.0]]), np.array([[1.0], [-1.0]]))
    with pytest.raises(EvaluationError, match="same product twice"):
        diversity_at_k(np.array([[1, 0, 1]]), np.eye(2))
    with pytest.raises(EvaluationError, match="row 2 of 2 products"):
        coverage_at_k(np.array([[2]]), 2)
    with pytest.raises(EvaluationError, match=r"must be \[queries, ranks\]"):
        coverage_at_k(np.array([1]), 2)
