"""VectorIndex against plain numpy, flat and HNSW, at every selectivity."""

import numpy as np
import pytest

from fuserank.errors import ModelError, StageError
from fuserank.retrieval.vectors import VectorIndex

N, E, K = 5000, 32, 50


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    centers = random.normal(size=(40, E))
    vectors = centers[random.integers(0, 40, N)] + 0.4 * random.normal(size=(N, E))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=["flat", "hnsw"])
def index(request, vectors, tmp_path_factory) -> VectorIndex:
    file = tmp_path_factory.mktemp("index") / "vectors.faiss"
    VectorIndex.build(vectors, request.param).save(file)
    return VectorIndex.load(file)


def queries(count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, E)).astype(np.float32)


def exact(queries: np.ndarray, vectors: np.ndarray, allowed: np.ndarray | None, k: int) -> np.ndarray:
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def test_unfiltered_recall(index, vectors):
    asked = queries()
    rows, scores = index.search(asked, K)
    best = exact(asked, vectors, None, K)
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows, best, strict=True)])
    assert recall == 1.0 if index.kind == "flat" else recall >= 0.95
    np.testing.assert_allclose(scores, np.einsum("be,bke->bk", asked, vectors[rows]), rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("batch", [1, 7])
def test_filtered_search_is_exact_and_full(index, vectors, share, batch):
    allowed = np.random.default_rng(2).random(N) < share
    asked = queries(batch)
    rows, scores = index.search(asked, K, allowed)
    expected = min(K, int(allowed.sum()))
    assert (rows >= 0).sum(axis=1).tolist() == [expected] * batch
    assert allowed[rows[:, :expected]].all()
    assert np.isneginf(scores[:, expected:]).all()
    assert np.isfinite(scores[:, :expected]).all()
    np.testing.assert_array_equal(rows[:, :expected], exact(asked, vectors, allowed, expected))


def test_nothing_allowed_or_asked(index):
    rows, scores = index.search(queries(2), 5, np.zeros(N, bool))
    assert (rows == -1).all()
    assert np.isneginf(scores).all()
    assert index.search(queries(0), 5)[0].shape == (0, 5)


def test_more_asked_than_there_is(vectors):
    rows, _ = VectorIndex.build(vectors[:3]).search(queries(1), 10)
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    assert (rows[0, 3:] == -1).all()


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_equal_scores_stand_in_row_order(kind):
    same = np.tile(np.eye(1, 8, dtype=np.float32), (300, 1))
    rows, _ = VectorIndex.build(same, kind).search(same[:1], 300)
    assert rows[0].tolist() == list(range(300))


def test_diverged_vectors_are_refused(vectors):
    bad = vectors.copy()
    bad[7, 3] = np.nan
    with pytest.raises(ModelError, match="row 7"):
        VectorIndex.build(bad)


def test_unreadable_file(tmp_path):
    (tmp_path / "vectors.faiss").write_bytes(b"not an index")
    with pytest.raises(StageError, match="vector index"):
        VectorIndex.load(tmp_path / "vectors.faiss")
