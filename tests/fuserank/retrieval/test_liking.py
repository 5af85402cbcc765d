"""A user's liking, against the Gaussian process of the same kernel, and on users with planted tastes."""

import numpy as np
import pytest

from fuserank.retrieval.liking import CHANCE, NOISE, SHOWN, Liking


@pytest.fixture
def vectors() -> np.ndarray:
    """[300, 12]: two directions that all differ in, ten that few do."""
    found = np.random.default_rng(0).normal(size=(300, 12)) * np.array([3, 3] + [0.3] * 10)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_scores_are_those_of_a_gaussian_process(vectors: np.ndarray) -> None:
    random, liking = np.random.default_rng(1), Liking(vectors)
    shown, looked, turned = random.integers(0, 300, 60), random.uniform(0.3, 1, 60), random.random(60) < 0.3
    seen = liking.seen(vectors)
    np.testing.assert_allclose(np.linalg.norm(seen[:, :-1], axis=1), 1, rtol=1e-5)
    told = seen[shown].astype(np.float64) * looked[:, None]
    kernel = np.array([[float(a @ b) for b in told] for a in told])
    dual = np.linalg.inv(kernel + NOISE * np.eye(60)) @ (turned - CHANCE * looked)
    found = liking.scores(vectors[:40], vectors[shown], looked, turned)
    np.testing.assert_allclose(found, seen[:40] @ told.T @ dual, atol=1e-4)


def test_directions_that_few_products_differ_in_count_more_than_they_vary(vectors: np.ndarray) -> None:
    spread = Liking(vectors).seen(vectors)[:, :-1].std(0)
    assert spread.max() / spread.min() < 0.6 * (s := vectors.std(0)).max() / s.min()


@pytest.mark.parametrize("direction", [0, 7])
def test_what_is_passed_over_tells_as_well_as_what_is_turned_to(vectors: np.ndarray, direction: int) -> None:
    """A user who likes one half of a direction; one who was shown only what they passed over dislikes what is alike."""
    random, liking = np.random.default_rng(2), Liking(vectors)
    shown, likes = random.integers(0, 300, 200), vectors[:, direction] > 0
    found = liking.scores(vectors, vectors[shown], np.ones(200), likes[shown])
    wrong = np.mean(found[likes][:, None] < found[~likes][None])
    assert wrong < 0.15
    passed = np.flatnonzero(likes)[:60]
    more = np.concatenate([shown, passed])
    turned = np.concatenate([likes[shown], np.zeros(60, bool)])
    cooler = liking.scores(vectors, vectors[more], np.ones(260), turned)
    assert (cooler - found)[likes].mean() < (cooler - found)[~likes].mean() - 0.1


def test_only_the_latest_count_and_strangers_like_nothing_more(vectors: np.ndarray) -> None:
    random, liking = np.random.default_rng(3), Liking(vectors)
    shown, turned = random.integers(0, 300, SHOWN + 50), random.random(SHOWN + 50) < 0.5
    looked = np.ones(SHOWN + 50)
    whole = liking.scores(vectors, vectors[shown], looked, turned)
    late = liking.scores(vectors, vectors[shown[50:]], looked[50:], turned[50:])
    np.testing.assert_array_equal(whole, late)
    none = np.zeros(0, bool)
    np.testing.assert_array_equal(liking.scores(vectors, vectors[:0], none, none), np.zeros(300))


@pytest.mark.parametrize("count", [1, 3])
def test_catalogues_of_next_to_nothing(count: int) -> None:
    vectors = np.ones((count, 4), np.float32)
    found = Liking(vectors).scores(vectors, vectors, np.ones(count), np.ones(count, bool))
    assert (found > 0).all()
