"""Rows of an earlier run, found again by what they were made of, so that only new and changed products cost anything.

Reads a folder of feature parts (see `rows`); writes an index of their keys beside them.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.features.layout import CARRIED, KEY

INDEX = "keys.npz"
_ROWS = 32  # bits of a place that say which row of its part


class Earlier:
    """Parts by their rows' keys. Picklable: a process opens the index when it first needs it."""

    def __init__(self, folder: Path):
        """Takes the folder of parts that `build` has seen; one without an index holds nothing."""
        self._folder = folder
        self._index: tuple[np.ndarray, np.ndarray, list[str]] | None = None
        self._open: tuple[str, pa.Table] | None = None

    @classmethod
    def build(cls, folder: Path) -> "Earlier":
        """Index every part of the folder. One that cannot be read is removed: a full disk may have cut it short."""
        keys, places, names = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], []
        for path in sorted(folder.glob("*.parquet")):
            try:
                found = pq.read_table(path, columns=["key"])["key"].combine_chunks()
            except (OSError, KeyError, pa.ArrowException):
                path.unlink()
                continue
            keys.append(_heads(found.to_pylist()))
            places.append(np.arange(len(found)) | (len(names) << _ROWS))
            names.append(path.name)
        every = np.concatenate(keys)
        order = np.argsort(every, kind="stable")
        np.savez(folder / INDEX, keys=every[order], places=np.concatenate(places)[order], names=np.array(names, str))
        return cls(folder)

    def __getstate__(self) -> Path:
        return self._folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)

    def find(self, keys: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """The columns CARRIED of each key's row; None where no part has it."""
        known, places, names = self._read()
        wanted = _heads(keys)
        at = np.searchsorted(known, wanted)
        by_part: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, place in enumerate(at.tolist()):
            if place < len(known) and known[place] == wanted[row]:
                part, inside = divmod(int(places[place]), 1 << _ROWS)
                by_part[names[part]].append((row, inside))
        found: list[dict[str, Any] | None] = [None] * len(keys)
        for name, pairs in by_part.items():
            taken = self._part(name).take(pa.array([inside for _, inside in pairs])).to_pylist()
            for (row, _), values in zip(pairs, taken, strict=True):
                if values.pop("key") == keys[row]:  # the index knows half of each key
                    found[row] = values
        return found

    def _part(self, name: str) -> pa.Table:
        if self._open is None or self._open[0] != name:
            self._open = name, pq.read_table(self._folder / name, columns=["key", *CARRIED])
        return self._open[1]

    def _read(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        if self._index is None:
            path = self._folder / INDEX
            if path.is_file():
                with np.load(path) as held:
                    self._index = held["keys"], held["places"], held["names"].tolist()
            else:
                self._index = np.zeros(0, np.uint64), np.zeros(0, np.int64), []
        return self._index


def _heads(keys: Sequence[bytes]) -> np.ndarray:
    """uint64: the first half of each key."""
    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, KEY // 8)[:, 0].copy()
