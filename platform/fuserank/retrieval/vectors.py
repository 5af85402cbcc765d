"""Inner-product search over product vectors with faiss: flat (exact), IVF lists or an HNSW graph; filters are exact.

Reads and writes one file, `vectors.faiss`. A filter is applied before ranking: if k allowed rows exist, k come back,
with every kind and at any selectivity.
"""

from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from fuserank.errors import ModelError, StageError
from fuserank.retrieval.approximate import build_hnsw, build_ivf, nearest, rows_read
from fuserank.retrieval.exact import BLOCK, best_rows

Kind = Literal["auto", "flat", "hnsw", "ivf"]

FLAT_UP_TO = 50_000  # rows up to which `auto` is flat and a filtered search reads every allowed row
WIDER = 1.3  # under a filter, so much more is looked for than would do if it let rows through at random
# what reading a row costs under a filter, against a row of a list: copying it, and multiplying it with each query
COPIED, MULTIPLIED = 2.3, 0.2
BATCH = 4  # queries from which a product of matrices beats faiss's scan
SCANNED = 0.3  # share of allowed rows from which faiss's scan with a bitmap beats copying them, for fewer queries


class VectorIndex:
    """faiss over vectors of one width. Use `build` or `load`; searching is thread-safe."""

    def __init__(self, index: Any):
        self.kind: Kind = _kind(index)
        self.size: int = index.ntotal
        self.width: int = index.d
        self._index = index
        self._flat: Any = faiss.downcast_index(index.storage) if self.kind == "hnsw" else index
        self._vectors: np.ndarray | None = None  # [N, E], a view of faiss's memory; IVF keeps its rows in lists
        if self.kind != "ivf":
            count = self.size * self.width
            flat = faiss.rev_swig_ptr(self._flat.get_xb(), count) if count else np.zeros(0, np.float32)
            self._vectors = flat.reshape(self.size, self.width)

    @classmethod
    def build(cls, vectors: np.ndarray, kind: Kind = "auto", like: "VectorIndex | None" = None) -> "VectorIndex":
        """Index float32 vectors [N, E]; row numbers are the ids.

        Args:
            kind: `auto` is flat up to FLAT_UP_TO rows, then ivf. A graph that cannot reach the recall that
                approximate.py asks for becomes ivf.
            like: an index of nearly the same vectors, which saves learning where the lists' centres are.

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
        kind = chosen_kind(kind, len(vectors))
        index = build_hnsw(vectors) if kind == "hnsw" else None
        if index is None and kind != "flat" and len(vectors):
            index = build_ivf(vectors, like and like._index)
        if index is None:
            index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(vectors)  # type: ignore[call-arg]
        return cls(index)

    @classmethod
    def load(cls, path: str | Path) -> "VectorIndex":
        """Open a saved index, and keep faiss to one thread in this process (one compute thread a replica).

        Raises:
            StageError: the file is missing or not a faiss index of ours.
        """
        faiss.omp_set_num_threads(1)
        try:
            return cls(faiss.read_index(str(path)))
        except RuntimeError as error:
            raise StageError(f"{path} is not a readable vector index.", "Run `fuserank index` again.") from error

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
        else:
            part_scores, part_rows = self._nearest(queries, found)
        order = np.lexsort((part_rows, -part_scores), axis=1)
        rows[:, :found] = np.take_along_axis(part_rows, order, axis=1)
        scores[:, :found] = np.take_along_axis(part_scores, order, axis=1)
        return rows, scores

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "flat" or rows_read(self._index, k) >= self.size:
            return self._exact(queries, k)
        scores, rows = nearest(self._index, queries, k)
        short = (rows < 0).any(axis=1)  # e.g. a walk that ended in a cluster of duplicates
        if short.any():
            scores[short], rows[short] = self._exact(queries[short], k)
        return scores, rows

    def _filtered(
        self, queries: np.ndarray, k: int, allowed: np.ndarray, matches: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best allowed rows of the nearest ones, if these hold so many (then no other allowed row is nearer) and
        that reads less; every allowed row for the queries left and under a narrow filter."""
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        left = np.arange(len(queries))
        depth = int(WIDER * k * self.size / matches) + 16
        budget = 0.0  # what reading all allowed rows costs, where that is much
        if self.kind != "flat" and matches > FLAT_UP_TO:
            budget = matches * (COPIED + MULTIPLIED * len(left))
        while budget > 0 and len(left) and depth < self.size:
            budget -= len(left) * rows_read(self._index, depth)
            if budget < 0:
                break
            near_scores, near_rows = nearest(self._index, queries[left], depth)
            good = (near_rows >= 0) & allowed[near_rows]
            enough = good.sum(axis=1) >= k
            order = np.argsort(~good[enough], axis=1, kind="stable")[:, :k]
            scores[left[enough]] = np.take_along_axis(near_scores[enough], order, axis=1)
            rows[left[enough]] = np.take_along_axis(near_rows[enough], order, axis=1)
            left, depth = left[~enough], 4 * depth
        if len(left):
            scores[left], rows[left] = self._exact(queries[left], k, allowed)
        return scores, rows

    def _exact(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Among all rows or the allowed ones."""
        few = self._vectors is not None and len(queries) < BATCH
        if allowed is None and few:
            return self._flat.search(queries, k)
        if allowed is None and self._vectors is not None:
            vectors = self._vectors
            return best_rows(queries, k, self.size, lambda part: vectors[part])
        rows = np.arange(self.size) if allowed is None else np.flatnonzero(allowed)
        if allowed is not None and few and len(rows) > SCANNED * self.size:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
            return self._flat.search(queries, k, params=faiss.SearchParameters(sel=selector))  # type: ignore[call-arg]
        copied = np.empty((min(BLOCK, len(rows)), self.width), np.float32)
        scores, places = best_rows(queries, k, len(rows), lambda part: self._read(rows[part], copied))
        return scores, rows[places]

    def _read(self, rows: np.ndarray, copied: np.ndarray) -> np.ndarray:
        copied = copied[: len(rows)]
        if self._vectors is None:
            self._index.reconstruct_batch(rows, x=copied)
        else:
            np.take(self._vectors, rows, axis=0, out=copied, mode="clip")  # another mode makes a copy of its own
        return copied


def chosen_kind(kind: Kind, size: int) -> Kind:
    """What `kind` means for a catalogue of this size."""
    if kind != "auto":
        return kind
    return "flat" if size <= FLAT_UP_TO else "ivf"


def _kind(index: Any) -> Kind:
    if isinstance(index, faiss.IndexIVF):
        return "ivf"
    return "hnsw" if isinstance(index, faiss.IndexHNSW) else "flat"
