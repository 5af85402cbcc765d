"""Inner-product search over product vectors with faiss: flat (exact) or HNSW; filters are exact with both.

Reads and writes one file, `vectors.faiss`. A filter is applied before ranking: if k allowed rows exist, k come back.
HNSW graphs lose results under narrow filters, so a filtered search scans the allowed rows of its storage instead.
"""

from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from fuserank.errors import ModelError, StageError

Kind = Literal["flat", "hnsw"]

HNSW_LINKS = 32
HNSW_BUILD_WIDTH = 120
HNSW_SEARCH_WIDTH = 128
GATHERED = 0.1  # under a filter, copying the allowed rows and multiplying beats faiss below this share, or for a batch
GATHERED_FLOATS = 2**25  # and as long as the copy and the scores stay below 128 MiB


class VectorIndex:
    """faiss over vectors of one width. Use `build` or `load`; searching is thread-safe."""

    def __init__(self, index: Any, kind: Kind):
        self.kind: Kind = kind
        self.size: int = index.ntotal
        self.width: int = index.d
        self._index = index
        self._flat: Any = faiss.downcast_index(index.storage) if kind == "hnsw" else index
        count = self.size * self.width
        pointer = self._flat.get_xb() if count else None
        flat = faiss.rev_swig_ptr(pointer, count) if count else np.zeros(0, np.float32)
        self._vectors = flat.reshape(self.size, self.width)  # a view of faiss's memory, not a copy

    @classmethod
    def build(cls, vectors: np.ndarray, kind: Kind = "flat") -> "VectorIndex":
        """Index float32 vectors [N, E]; row numbers are the ids.

        Raises:
            ModelError: not a matrix, or values that are not finite (they would poison every answer).
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2:
            raise ModelError(f"vectors must be a matrix [N, E], not of shape {vectors.shape}.")
        if not np.isfinite(vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ModelError(
                f"the vector of row {bad} has values that are not finite.", "Train again: the model diverged."
            )
        width = vectors.shape[1]
        if kind == "hnsw":
            index: Any = faiss.IndexHNSWFlat(width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = HNSW_BUILD_WIDTH
        else:
            index = faiss.IndexFlatIP(width)
        index.add(vectors)
        return cls(index, kind)

    @classmethod
    def load(cls, path: str | Path) -> "VectorIndex":
        """Open a saved index, and keep faiss to one thread in this process (one compute thread a replica).

        Raises:
            StageError: the file is missing or not a faiss index of ours.
        """
        faiss.omp_set_num_threads(1)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise StageError(f"{path} is not a readable vector index.", "Run `fuserank index` again.") from error
        return cls(index, "hnsw" if isinstance(index, faiss.IndexHNSWFlat) else "flat")

    def save(self, path: str | Path) -> None:
        """Write the index to one file."""
        faiss.write_index(self._index, str(path))

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k rows with the largest inner product, best first, equal scores by row.

        Args:
            queries: float32 [B, E].
            allowed: bool [N], or None for every row.

        Returns:
            rows int64 [B, k] and scores float32 [B, k]; where fewer than k rows are allowed, -1 and -inf.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        matches = self.size if allowed is None else int(np.count_nonzero(allowed))
        found = min(k, matches)
        if found == 0 or len(queries) == 0:
            return rows, scores
        if allowed is not None and matches < self.size:
            part_scores, part_rows = self._filtered(queries, found, allowed, matches)
        elif self.kind == "hnsw":
            part_scores, part_rows = self._graph(queries, found)
        else:
            part_scores, part_rows = self._index.search(queries, found)
        order = np.lexsort((part_rows, -part_scores), axis=1)
        rows[:, :found] = np.take_along_axis(part_rows, order, axis=1)
        scores[:, :found] = np.take_along_axis(part_scores, order, axis=1)
        return rows, scores

    def _graph(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        parameters: Any = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
            efSearch=max(HNSW_SEARCH_WIDTH, 2 * k)
        )
        scores, rows = self._index.search(queries, k, params=parameters)
        short = (rows < 0).any(axis=1)  # the walk ended early, e.g. in a cluster of duplicates
        if short.any():
            scores[short], rows[short] = self._flat.search(queries[short], k)
        return scores, rows

    def _filtered(
        self, queries: np.ndarray, k: int, allowed: np.ndarray, matches: int
    ) -> tuple[np.ndarray, np.ndarray]:
        cheap = len(queries) > 1 or matches < GATHERED * self.size
        if matches <= k or (cheap and matches * (self.width + len(queries)) <= GATHERED_FLOATS):
            candidates = np.flatnonzero(allowed)
            part = queries @ self._vectors[candidates].T  # [B, matches]
            best = np.argpartition(part, matches - k, axis=1)[:, matches - k :]
            return np.take_along_axis(part, best, axis=1), candidates[best]
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        return self._flat.search(queries, k, params=parameters)
