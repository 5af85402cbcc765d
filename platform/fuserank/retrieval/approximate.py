"""faiss indexes that read a part of the vectors: IVF lists and HNSW graphs, with a measured recall. Writes nothing.

How much a search reads – lists of an IVF index, the width of the walk through a graph – is set when the index is built:
the least with which rows held out from training, and questions made of them, find their nearest neighbours. faiss keeps
it in the index's file.
"""

import logging
from typing import Any

import faiss
import numpy as np

from fuserank.retrieval.exact import best_rows

log = logging.getLogger("fuserank.retrieval")

RECALL = 0.99  # of the neighbours at each of DEPTHS; the lower 95 % bound of the mean of each kind of question
DEPTHS = (100, 200)  # effort grows with depth beyond the first
SAMPLE = 256  # rows that recall is measured with
MIXED = 5  # products a user's vector is the mean of
STEP = 1.25  # between the efforts tried

LISTS = 4.0  # IVF: lists for each square root of the number of rows
TAUGHT = 40  # rows a list that the lists' centres are learnt from
ROUNDS = 10  # of k-means
ASSIGNED = 512  # rows multiplied with the centres at a time

LINKS = 32  # HNSW
BUILD_WIDTH = 120
SEARCH_WIDTH = 128  # at least; also of indexes that were saved before widths were measured
WIDEST = 2048  # a graph that needs more is worse than lists


def build_ivf(vectors: np.ndarray, like: Any = None) -> Any:
    """Lists around centres by spherical k-means; vectors float32 [N, E], N ≥ 1.

    Args:
        like: an index whose centres are taken, if it is one of lists and not half or twice as large.
    """
    size, width = vectors.shape
    count = max(1, min(int(LISTS * size**0.5), size // 8))
    mixed = np.random.default_rng(0).permutation(size)
    held = min(SAMPLE, size // 2)
    if isinstance(like, faiss.IndexIVF) and size / 2 < like.ntotal < size * 2:
        count = like.nlist
        centres = like.quantizer.reconstruct_n(0, count)
    else:
        taught = np.sort(mixed[held : held + TAUGHT * count]) if held else mixed
        centres = _centres(vectors[taught], count)
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(centres)  # type: ignore[call-arg]
    index: Any = faiss.IndexIVFFlat(quantizer, width, count, faiss.METRIC_INNER_PRODUCT)
    index.make_direct_map(True)  # row → its place, so that single rows can be read
    assigned = _nearest_centre(vectors, centres)
    index.add_core(size, faiss.swig_ptr(vectors), None, faiss.swig_ptr(assigned))
    calibrate(index, vectors, np.sort(mixed[: max(held, 1)]))
    return index


def build_hnsw(vectors: np.ndarray) -> Any | None:
    """A graph over vectors float32 [N, E]; None where no width of the walk reaches RECALL."""
    size, width = vectors.shape
    index: Any = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_WIDTH
    index.hnsw.efSearch = SEARCH_WIDTH
    index.add(vectors)
    sample = np.sort(np.random.default_rng(0).permutation(size)[:SAMPLE])
    if size > 1 and not calibrate(index, vectors, sample):
        log.warning("an HNSW graph of these vectors does not reach a recall of %s; IVF lists instead", RECALL)
        return None
    return index


def nearest(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """scores float32 [B, k] and rows int64 [B, k], best first; −1 where what was read held no more."""
    effort = max(1.0, k / DEPTHS[0])
    if isinstance(index, faiss.IndexIVF):
        lists = min(index.nlist, int(np.ceil(index.nprobe * effort)))
        return index.search(queries, k, params=faiss.IVFSearchParameters(nprobe=lists))  # type: ignore[call-arg]
    width = int(max(index.hnsw.efSearch, SEARCH_WIDTH) * effort)
    return index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=width))  # type: ignore[call-arg]


def rows_read(index: Any, k: int) -> float:
    """About how many vectors `nearest` compares one query with."""
    effort = max(1.0, k / DEPTHS[0])
    if isinstance(index, faiss.IndexIVF):
        return index.nlist + min(1.0, effort * index.nprobe / index.nlist) * index.ntotal
    return min(float(index.ntotal), LINKS / 2 * max(index.hnsw.efSearch, SEARCH_WIDTH) * effort)


def calibrate(index: Any, vectors: np.ndarray, rows: np.ndarray) -> bool:
    """Set the least effort with which every kind of question finds its neighbours; whether RECALL was reached.

    Args:
        rows: int64 [S], which questions are made of.
    """
    depths = [depth for depth in DEPTHS if depth < len(vectors)] or [len(vectors) - 1]
    asked = [(queries, own, _truth(vectors, queries, own, depths[-1])) for queries, own in _questions(vectors, rows)]
    lists = isinstance(index, faiss.IndexIVF)
    effort, most = (1, index.nlist) if lists else (SEARCH_WIDTH, WIDEST)
    while True:
        if lists:
            index.nprobe = effort
        else:
            index.hnsw.efSearch = effort
        if all(_reached(index, queries, own, truth[:, :depth]) for queries, own, truth in asked for depth in depths):
            return True
        if effort == most:
            return False
        effort = min(most, max(effort + 1, int(effort * STEP)))


def _questions(vectors: np.ndarray, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """queries float32 [S, E] and, of each, the row that is no answer or −1.

    Products, as `similar` asks; products and as much noise, as words that tell half; means, as a user's vector is.
    """
    random = np.random.default_rng(2)
    products = _unit(vectors[rows])
    noise = _unit(random.standard_normal(products.shape, np.float32))
    mixed = vectors[random.integers(len(vectors), size=(len(rows), MIXED))].mean(axis=1)
    none = np.full(len(rows), -1)
    return [(products, rows), (products + noise, none), (mixed, none)]


def _truth(vectors: np.ndarray, queries: np.ndarray, own: np.ndarray, depth: int) -> np.ndarray:
    """float32 [S, depth]: scores of the nearest rows but the own one, best first."""
    scores, rows = best_rows(queries, depth + 1, len(vectors), lambda part: vectors[part])
    return -np.sort(-np.where(rows == own[:, None], -np.inf, scores), axis=1)[:, :depth]


def _reached(index: Any, queries: np.ndarray, own: np.ndarray, truth: np.ndarray) -> bool:
    """By scores, so that equal vectors stand for each other."""
    depth = truth.shape[1]
    if depth == 0:
        return True
    scores, rows = nearest(index, queries, depth + 1)
    last = truth[:, -1:]
    good = (scores >= last - 1e-5 * np.abs(last)) & (rows != own[:, None])
    shares = good.sum(axis=1).clip(max=depth) / depth
    return bool(shares.mean() - 1.65 * shares.std() / len(shares) ** 0.5 >= RECALL)


def _centres(vectors: np.ndarray, count: int) -> np.ndarray:
    """Spherical k-means: float32 [count, E]. numpy's products are six times as fast here as faiss's."""
    random = np.random.default_rng(1)
    centres = _unit(vectors[np.sort(random.choice(len(vectors), count, replace=False))])
    for _ in range(ROUNDS):
        assigned = _nearest_centre(vectors, centres)
        order = np.argsort(assigned, kind="stable")
        filled, starts = np.unique(assigned[order], return_index=True)
        centres[filled] = _unit(np.add.reduceat(vectors[order], starts, axis=0))
        empty = np.setdiff1d(np.arange(count), filled)
        centres[empty] = _unit(vectors[random.choice(len(vectors), len(empty), replace=False)])
    return centres


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _nearest_centre(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """int64 [N]."""
    assigned = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), ASSIGNED):
        assigned[start : start + ASSIGNED] = (vectors[start : start + ASSIGNED] @ centres.T).argmax(axis=1)
    return assigned
