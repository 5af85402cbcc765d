"""A catalogue with products beside it that no search finds: they are only scored, as if they had been added to it.

Nothing is written, and the catalogue stays as it is. R rows of the catalogue · G guests, rows R … R + G − 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.records.schema import PRODUCT
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import LiveCatalogue, Vectors


@dataclass(frozen=True, slots=True)
class Guest:
    """A product as it was given."""

    row: dict[str, Any]  # of PRODUCT, media left out
    text: str  # as word search would see it
    vectors: Vectors


class GuestCatalogue:
    """What scoring reads of a catalogue: `size, vectors, modality_vectors, mask, lexical_index, traits`."""

    def __init__(self, catalogue: Catalogue | LiveCatalogue, guests: Sequence[Guest]):
        self._catalogue, self._guests = catalogue, list(guests)
        self._base = catalogue.size
        self.size = self._base + len(self._guests)
        found = [guest.vectors for guest in self._guests]
        self.vectors = _Beside(catalogue.vectors, [one.fused for one in found])
        self.modality_vectors = _Beside(catalogue.modality_vectors, [one.modalities for one in found])
        self.mask = _Beside(catalogue.mask, [one.mask for one in found])
        self.lexical_index = _Words(catalogue, [guest.text for guest in self._guests])

    @property
    def traits(self) -> Any:
        """The catalogue's, and those of the guests by its values and prices; a copy each time it is asked for."""
        if not self._guests:
            return self._catalogue.traits
        table = pa.Table.from_pylist([guest.row for guest in self._guests], PRODUCT)
        return self._catalogue.traits.beside(table, self._base)


class _Beside:
    """`array[rows]` of a catalogue's array and, from its end on, of the guests'."""

    def __init__(self, base: Any, guests: Sequence[np.ndarray]):
        self._base, self._guests = base, guests
        self.shape = (base.shape[0] + len(guests), *base.shape[1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        rows, size = np.asarray(rows), self._base.shape[0]
        inside = rows < size
        known = self._base[rows[inside]]
        if inside.all():
            return known
        found = np.empty((len(rows), *known.shape[1:]), known.dtype)
        found[inside] = known
        found[~inside] = np.stack([self._guests[row - size] for row in rows[~inside].tolist()])
        return found


class _Words:
    """`score` of a lexical index, guests included."""

    def __init__(self, catalogue: Catalogue | LiveCatalogue, texts: Sequence[str]):
        self._index, self._size, self._texts = catalogue.lexical_index, catalogue.size, texts

    def score(self, text: str, rows: np.ndarray) -> np.ndarray:
        """BM25 of the given rows, float32."""
        inside = rows < self._size
        found = np.zeros(len(rows), np.float32)
        found[inside] = self._index.score(text, rows[inside])
        if not inside.all():
            others = [self._texts[int(row) - self._size] for row in rows[~inside]]
            found[~inside] = self._index.score_texts(text, others)
        return found
