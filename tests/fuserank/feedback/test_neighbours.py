"""Neighbours count each meeting by its distance, and a past by its recency: against loops written out."""

import numpy as np

from fuserank.feedback import neighbours
from fuserank.feedback.neighbours import GRID, WINDOW, Neighbours, Shape, fitted


def histories(products: int = 12) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, products, n) for n in (0, 1, 5, 30, 9)]


SHAPE = Shape(back=0.4, decay=0.7, left=0.3, right=0.2, recency=0.8)


def slow(found: list[np.ndarray], products: int, shape: Shape = SHAPE) -> np.ndarray:
    """[from, to]"""
    together, turned = np.zeros((products, products)), np.zeros(products)
    for rows in found:
        for i, one in enumerate(rows):
            turned[one] += 1
            for j, two in enumerate(rows):
                if 0 < abs(i - j) <= WINDOW and one != two:
                    together[one, two] += (1 if i < j else shape.back) / abs(i - j) ** shape.decay
    turned = np.maximum(turned, 1)
    return together / np.outer(turned**shape.left, turned**shape.right)


def test_scores_are_those_of_a_loop() -> None:
    found = Neighbours.count(histories(), 12, SHAPE)
    weights = slow(histories(), 12)
    expected = np.zeros(14)
    for place, row in enumerate([3, 7, 1]):  # the latest turn to 7 counts, not its first
        expected[:12] += weights[row] / (place + 1) ** SHAPE.recency
    np.testing.assert_allclose(found.scores(np.array([7, 1, 7, 3]), 14), expected, rtol=1e-5)
    assert not found.scores(np.zeros(0, np.int64), 14).any()


def test_products_that_came_since_have_none() -> None:
    found = Neighbours.count(histories(), 12)
    assert not found.scores(np.array([13]), 14).any()
    assert not Neighbours.count([], 0).scores(np.array([0]), 3).any()


def test_the_nearest_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "KEPT", 2)
    found, weights = Neighbours.count(histories(), 12, SHAPE), slow(histories(), 12)
    for row in range(12):
        kept = found.right[found.left == row]
        assert len(kept) <= 2
        best = np.sort(weights[row])[::-1][: len(kept)]
        np.testing.assert_allclose(np.sort(weights[row, kept])[::-1], best, rtol=1e-5)


def test_what_is_saved_is_loaded(tmp_path) -> None:
    found = Neighbours.count(histories(), 12, SHAPE)
    found.save(tmp_path)
    past = np.array([3, 7, 1])
    np.testing.assert_array_equal(Neighbours.load(tmp_path, 12).scores(past, 12), found.scores(past, 12))
    assert Neighbours.load(tmp_path, 12).recency == 0.8


def test_the_best_shape_is_found_one_number_after_the_other() -> None:
    goal = {"decay": 1.0, "right": 0.5, "back": 0.6, "recency": 0.5}
    best = fitted(Shape(), lambda shape: -sum(abs(getattr(shape, name) - value) for name, value in goal.items()))
    assert {name: getattr(best, name) for name in GRID} == goal
    assert fitted(Shape(), lambda shape: 0.0) == Shape()
