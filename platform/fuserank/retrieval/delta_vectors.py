"""The vectors of a catalogue that changes: an immutable base and, beside it, the vectors of changed products, searched
by one product of matrices. Reads and writes nothing. For one compute thread.

A changed row's base vector is a tombstone: it is never found again. Results are those of an index made anew of all
present vectors.

Legend: R rows (base and new), B requests, M modalities, D modality width, E fused width.
"""

from collections.abc import Callable

import numpy as np

from fuserank.retrieval.vectors import Kind, VectorIndex

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""fused float32 [R, E], modalities float16 [R, M, D], mask bool [R, M]."""


class DeltaVectors:
    """`search` is VectorIndex's; `fused`, `modalities` and `mask` are read by rows, like the base's arrays."""

    def __init__(self, base: VectorIndex, arrays: Arrays):
        self.size = base.size
        self._base, self._arrays = base, arrays
        self._slot = np.full(base.size, -1, np.int64)  # row → its place in the delta, -1: the base's vector counts
        self._gone = np.zeros(base.size, bool)
        self._hidden = np.zeros(base.size, bool)  # rows the base must not give: gone, or in the delta
        self._rows = np.zeros(0, np.int64)  # place in the delta → row
        self._delta = tuple(np.zeros((0, *part.shape[1:]), part.dtype) for part in arrays)
        self._count = 0
        self._since: set[int] | None = None  # rows changed since a compaction began
        self.moved: set[int] = set()  # rows with other vectors than when somebody last asked
        self.fused = RowReader(self, 0)
        self.modalities = RowReader(self, 1)
        self.mask = RowReader(self, 2)

    @property
    def delta(self) -> int:
        """Vectors beside the base."""
        return self._count

    def grow(self, count: int) -> None:
        """Room for `count` further rows; they have no vector yet."""
        self._slot = np.concatenate([self._slot, np.full(count, -1, np.int64)])
        self._gone = np.concatenate([self._gone, np.ones(count, bool)])
        self._hidden = np.concatenate([self._hidden, np.ones(count, bool)])
        self.size += count

    def put(self, row: int, fused: np.ndarray, modalities: np.ndarray, mask: np.ndarray) -> None:
        """The row's vectors from now on."""
        self._touch(row)
        self.moved.add(row)
        slot = int(self._slot[row])
        if slot < 0:
            if self._count == len(self._rows):
                self._reserve(max(64, 2 * self._count))
            slot = self._slot[row] = self._count
            self._rows[slot] = row
            self._count += 1
        for part, value in zip(self._delta, (fused, modalities, mask), strict=True):
            part[slot] = value
        self._gone[row], self._hidden[row] = False, True

    def drop(self, row: int) -> None:
        """The row is never found again, until `put`."""
        self._touch(row)
        self._gone[row] = self._hidden[row] = True
        slot = int(self._slot[row])
        if slot >= 0:
            self._free(slot)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As VectorIndex.search, over base and delta together."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, scores = self._search_base(queries, k, allowed)
        if self._count == 0:
            return rows, scores
        members = self._rows[: self._count]
        near = queries @ self._delta[0][: self._count].T  # [B, delta]
        if allowed is not None:
            near = np.where(allowed[members], near, -np.inf)
        members = np.broadcast_to(members, near.shape)
        if self._count > k:  # sorting all of a large delta would take longer than the search
            best = np.argpartition(near, self._count - k, axis=1)[:, self._count - k :]
            near, members = np.take_along_axis(near, best, axis=1), np.take_along_axis(members, best, axis=1)
        rows = np.concatenate([rows, members], axis=1)
        scores = np.concatenate([scores, near], axis=1)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
        return np.where(np.isneginf(scores), -1, rows), scores

    def snapshot(self, kind: Kind) -> Callable[[], tuple[VectorIndex, Arrays]]:
        """What makes a new base of everything as it is now, to be called in any thread; `install` takes its result."""
        self._since = set()
        count, size = self._count, self.size
        changed = self._rows[:count].copy()
        parts = tuple(part[:count].copy() for part in self._delta)
        base_index, arrays = self._base, self._arrays

        def make() -> tuple[VectorIndex, Arrays]:
            made = []
            for base, delta in zip(arrays, parts, strict=True):
                whole = np.zeros((size, *base.shape[1:]), base.dtype)
                whole[: len(base)] = base
                whole[changed] = delta
                made.append(whole)
            return VectorIndex.build(made[0], kind, base_index), (made[0], made[1], made[2])

        return make

    def install(self, made: tuple[VectorIndex, Arrays]) -> None:
        """Answer from the new base; what has changed since the snapshot stays in the delta."""
        since, self._since = self._since or set(), None
        self._base, self._arrays = made
        for slot in reversed(range(self._count)):
            if int(self._rows[slot]) not in since:
                self._free(slot)
        self._hidden = self._gone | (self._slot >= 0)

    def read(self, part: int, rows: np.ndarray) -> np.ndarray:
        """One of the three arrays at these rows, of any shape; zeros where the row never had a vector."""
        rows = np.asarray(rows, np.int64)
        base, slots = self._arrays[part], self._slot[rows]
        found = base[np.minimum(rows, len(base) - 1)]
        if self.size > len(base):
            found[rows >= len(base)] = 0
        if self._count:
            found[slots >= 0] = self._delta[part][slots[slots >= 0]]
        return found

    def _search_base(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        size = self._base.size
        hidden = self._hidden[:size]
        count = int(np.count_nonzero(hidden))
        if allowed is not None:
            return self._base.search(queries, k, allowed[:size] & ~hidden if count else allowed[:size])
        if count == 0:
            return self._base.search(queries, k)
        depth = k + min(count, 16 + 4 * k * count // size)
        while True:  # a mask of nearly all rows would have the index look at every one of them
            depth = min(depth, size)
            rows, scores = self._base.search(queries, depth)
            lost = (rows < 0) | hidden[rows]
            if depth == size or int((~lost).sum(axis=1).min(initial=depth)) >= k:
                break
            depth *= 2
        scores = np.where(lost, -np.inf, scores)
        order = np.argsort(lost, axis=1, kind="stable")[:, :k]
        rows = np.take_along_axis(np.where(lost, -1, rows), order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        short = k - rows.shape[1]
        if short > 0:
            rows = np.pad(rows, ((0, 0), (0, short)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        return rows, scores

    def _touch(self, row: int) -> None:
        if self._since is not None:
            self._since.add(row)

    def _free(self, slot: int) -> None:
        """The last one takes the place."""
        self._count -= 1
        last = self._count
        self._slot[self._rows[slot]] = -1
        if slot != last:
            for part in self._delta:
                part[slot] = part[last]
            self._rows[slot] = self._rows[last]
            self._slot[self._rows[slot]] = slot

    def _reserve(self, room: int) -> None:
        self._rows = np.resize(self._rows, room)
        self._delta = tuple(
            np.concatenate([part, np.zeros((room - len(part), *part.shape[1:]), part.dtype)]) for part in self._delta
        )


class RowReader:
    """One array of a DeltaVectors: `reader[rows]`."""

    def __init__(self, vectors: DeltaVectors, part: int):
        self._vectors, self._part = vectors, part

    @property
    def shape(self) -> tuple[int, ...]:
        """[R, …]."""
        return (self._vectors.size, *self._vectors._arrays[self._part].shape[1:])

    def __len__(self) -> int:
        return self._vectors.size

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors.read(self._part, rows)
