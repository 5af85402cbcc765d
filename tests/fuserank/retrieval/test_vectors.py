"""VectorIndex of every kind against plain numpy, at every selectivity."""

import numpy as np
import pytest

from fuserank.errors import ModelError, StageError
from fuserank.retrieval import approximate, exact
from fuserank.retrieval import vectors as subject
from fuserank.retrieval.vectors import VectorIndex

N, E, K = 5000, 32, 50
KINDS = ["flat", "hnsw", "ivf"]
APPROXIMATE = KINDS[1:]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    centers = random.normal(size=(40, E))
    vectors = centers[random.integers(0, 40, N)] + 0.4 * random.normal(size=(N, E))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def index(request, vectors, tmp_path_factory) -> VectorIndex:
    file = tmp_path_factory.mktemp("index") / "vectors.faiss"
    VectorIndex.build(vectors, request.param).save(file)
    return VectorIndex.load(file)


def queries(count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, E)).astype(np.float32)


def near_products(vectors: np.ndarray, count: int, seed: int = 3) -> np.ndarray:
    """What people ask: products, half hidden by noise."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(count, vectors.shape[1])) / vectors.shape[1] ** 0.5
    return (vectors[random.choice(len(vectors), count)] + noise).astype(np.float32)


def recall_of(
    rows: np.ndarray, scores: np.ndarray, best: np.ndarray, queries: np.ndarray, vectors: np.ndarray
) -> float:
    """Share of rows that are as good as the last of the best; equal vectors stand for each other."""
    last = np.einsum("be,be->b", queries, vectors[best[:, -1]])
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    return float((scores >= last[:, None] - 1e-4).mean())


def ranked(queries: np.ndarray, vectors: np.ndarray, allowed: np.ndarray | None, k: int) -> np.ndarray:
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("batch", [1, 100])
def test_unfiltered_recall(index, vectors, batch):
    asked = near_products(vectors, 100)
    parts = [index.search(part, K) for part in np.split(asked, 100 // batch)]
    rows, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    best = ranked(asked, vectors, None, K)
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows, best, strict=True)])
    assert recall == 1.0 if index.kind == "flat" else recall >= 0.985
    np.testing.assert_allclose(scores, np.einsum("be,bke->bk", asked, vectors[rows]), rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("k", [1, 10, 100, 400, 2000, N])
def test_recall_holds_at_any_depth(index, vectors, k):
    asked = near_products(vectors, 50, seed=4)
    rows, scores = index.search(asked, k)
    assert (rows >= 0).all()
    assert recall_of(rows, scores, ranked(asked, vectors, None, k), asked, vectors) >= 0.98


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_what_was_measured_is_kept_in_the_file(vectors, kind, tmp_path, monkeypatch):
    built = VectorIndex.build(vectors, kind)
    built.save(tmp_path / "vectors.faiss")
    asked = near_products(vectors, 30)
    monkeypatch.setattr(approximate, "calibrate", lambda *_: pytest.fail("an opened index is measured already"))
    loaded = VectorIndex.load(tmp_path / "vectors.faiss")
    assert loaded.kind == built.kind == kind
    for a, b in zip(loaded.search(asked, K), built.search(asked, K), strict=True):
        np.testing.assert_array_equal(a, b)


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
    np.testing.assert_array_equal(rows[:, :expected], ranked(asked, vectors, allowed, expected))


def test_nothing_allowed_or_asked(index):
    rows, scores = index.search(queries(2), 5, np.zeros(N, bool))
    assert (rows == -1).all()
    assert np.isneginf(scores).all()
    assert index.search(queries(0), 5)[0].shape == (0, 5)


def test_more_asked_than_there_is(vectors):
    rows, _ = VectorIndex.build(vectors[:3]).search(queries(1), 10)
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    assert (rows[0, 3:] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_stand_in_row_order(kind):
    same = np.tile(np.eye(1, 8, dtype=np.float32), (300, 1))
    rows, _ = VectorIndex.build(same, kind).search(same[:1], 300)
    assert rows[0].tolist() == list(range(300))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 17, 200])
def test_small_catalogues(vectors, kind, count):
    asked = near_products(vectors, 6)
    rows, _ = VectorIndex.build(vectors[:count], kind).search(asked, 100)
    found = min(count, 100)
    np.testing.assert_array_equal(rows[:, :found], ranked(asked, vectors[:count], None, found))
    assert (rows[:, found:] == -1).all()


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_wide_filters_are_full_and_right_wherever_allowed_rows_lie(vectors, kind, batch, monkeypatch):
    """Rows near the queries allowed, none of them allowed, and any at random; as in a catalogue too large to scan."""
    monkeypatch.setattr(subject, "FLAT_UP_TO", 0)
    index = VectorIndex.build(vectors, kind)
    near = vectors @ vectors[0] > np.quantile(vectors @ vectors[0], 0.5)
    asked = near_products(vectors, batch) + 2 * vectors[0]
    for allowed in (near, ~near, np.random.default_rng(5).random(N) < 0.5, np.arange(N) != 7):
        rows, scores = index.search(asked, K, allowed)
        assert allowed[rows].all()
        assert (rows >= 0).all()
        np.testing.assert_allclose(scores, np.einsum("be,bke->bk", asked, vectors[rows]), rtol=1e-4, atol=1e-5)
        best = ranked(asked, vectors, allowed, K)
        assert recall_of(rows, scores, best, asked, vectors) >= (1.0 if kind == "flat" else 0.97)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_catalogue_of_one_large_and_many_tiny_clusters(kind):
    """Half of all rows nearly the same, the rest in groups of five far apart: lists of very different length."""
    random = np.random.default_rng(6)
    large = np.eye(1, E) + 0.02 * random.normal(size=(2000, E))
    tiny = np.repeat(random.normal(size=(400, E)), 5, axis=0) + 0.05 * random.normal(size=(2000, E))
    rows = np.concatenate([large, tiny, np.tile(tiny[:1], (50, 1))])
    rows = random.permutation(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = VectorIndex.build(rows, kind)
    asked = rows[random.choice(len(rows), 100)]
    found, scores = index.search(asked, 100)
    assert recall_of(found, scores, ranked(asked, rows, None, 100), asked, rows) >= 0.98
    allowed = rows[:, 0] < 0.5  # the large cluster is hidden
    found, scores = index.search(asked, 100, allowed)
    assert (found >= 0).all()
    assert recall_of(found, scores, ranked(asked, rows, allowed, 100), asked, rows) == 1.0


def test_vectors_of_any_length(vectors):
    scaled = (vectors * np.random.default_rng(7).lognormal(size=(N, 1))).astype(np.float32)
    scaled[3] = 0
    asked = near_products(vectors, 60)
    rows, scores = VectorIndex.build(scaled, "ivf").search(asked, K)
    assert recall_of(rows, scores, ranked(asked, scaled, None, K), asked, scaled) >= 0.97


def test_lists_around_the_centres_of_another_index(vectors, monkeypatch):
    first = VectorIndex.build(vectors, "ivf")
    monkeypatch.setattr(approximate, "_centres", lambda *_: pytest.fail("centres are known"))
    moved = vectors.copy()
    moved[:300] = np.roll(vectors[:300], 1, axis=1)
    asked = near_products(moved, 60)
    rows, scores = VectorIndex.build(moved, "ivf", first).search(asked, K)
    assert recall_of(rows, scores, ranked(asked, moved, None, K), asked, moved) >= 0.97
    with pytest.raises(pytest.fail.Exception):
        VectorIndex.build(vectors[:1000], "ivf", first)  # another size wants other lists


def test_a_graph_that_cannot_find_them_becomes_lists(vectors, monkeypatch):
    monkeypatch.setattr(approximate, "WIDEST", approximate.SEARCH_WIDTH)
    monkeypatch.setattr(approximate, "LINKS", 2)
    assert VectorIndex.build(vectors, "hnsw").kind == "ivf"


def test_auto_is_exact_until_a_catalogue_is_large(vectors, monkeypatch):
    assert VectorIndex.build(vectors).kind == "flat"
    monkeypatch.setattr(subject, "FLAT_UP_TO", N - 1)
    assert VectorIndex.build(vectors).kind == "ivf"


@pytest.mark.parametrize("k", [1, 30, 700])
def test_exact_search_in_blocks(vectors, k, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 64)
    asked = queries(3)
    scores, places = exact.best_rows(asked, k, 700, lambda part: vectors[:700][part])
    order = np.argsort(-scores, axis=1)
    np.testing.assert_array_equal(np.take_along_axis(places, order, axis=1), ranked(asked, vectors[:700], None, k))


def test_diverged_vectors_are_refused(vectors):
    bad = vectors.copy()
    bad[7, 3] = np.nan
    with pytest.raises(ModelError, match="row 7"):
        VectorIndex.build(bad)


def test_unreadable_file(tmp_path):
    (tmp_path / "vectors.faiss").write_bytes(b"not an index")
    with pytest.raises(StageError, match="vector index"):
        VectorIndex.load(tmp_path / "vectors.faiss")
