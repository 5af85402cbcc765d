"""Neighbours count each meeting by its distance, and a past by its recency: against loops written out."""

import numpy as np

from fuserank.feedback import neighbours
from fuserank.feedback.neighbours import WINDOW, Neighbours


def histories(products: int = 12) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, products, n) for n in (0, 1, 5, 30, 9)]


def slow(found: list[np.ndarray], products: int) -> np.ndarray:
    together, turned = np.zeros((products, products)), np.zeros(products)
    for rows in found:
        for i, one in enumerate(rows):
            turned[one] += 1
            for j, two in enumerate(rows):
                if 0 < abs(i - j) <= WINDOW and one != two:
                    together[one, two] += 1 / abs(i - j)
    return together / np.sqrt(np.outer(np.maximum(turned, 1), np.maximum(turned, 1)))


def test_scores_are_those_of_a_loop() -> None:
    found = Neighbours.count(histories(), 12)
    weights = slow(histories(), 12)
    expected = np.zeros(14)
    for place, row in enumerate([3, 7, 1]):  # the latest turn to 7 counts, not its first
        expected[:12] += weights[row] / (place + 1)
    np.testing.assert_allclose(found.scores(np.array([7, 1, 7, 3]), 14), expected, rtol=1e-5)
    assert not found.scores(np.zeros(0, np.int64), 14).any()


def test_products_that_came_since_have_none() -> None:
    found = Neighbours.count(histories(), 12)
    assert not found.scores(np.array([13]), 14).any()
    assert not Neighbours.count([], 0).scores(np.array([0]), 3).any()


def test_the_nearest_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "KEPT", 2)
    found, weights = Neighbours.count(histories(), 12), slow(histories(), 12)
    for row in range(12):
        kept = found.right[found.left == row]
        assert len(kept) <= 2
        best = np.sort(weights[row])[::-1][: len(kept)]
        np.testing.assert_allclose(np.sort(weights[row, kept])[::-1], best, rtol=1e-5)
