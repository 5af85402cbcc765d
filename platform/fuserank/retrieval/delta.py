"""A generation's catalogue with live changes: the base stays as it was built, changes lie beside it, results are those
of an index made anew of the products as they are now. Reads the base, writes a scratch folder. For one compute thread.

Every product keeps its row for good: a new one gets the next free row, a deleted one keeps it (nothing finds it) and
gets it back when it returns. Rows follow from the change log alone, so that everybody who follows it counts them alike.

Compaction makes a new base of base and delta: `compaction` gives a job for any thread, `install` takes what it made.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.records.live import Record, to_row
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta_records import DeltaRecords
from fuserank.retrieval.delta_vectors import DeltaVectors
from fuserank.retrieval.delta_words import DeltaWords
from fuserank.retrieval.traits import Traits
from fuserank.retrieval.vectors import Kind

CHUNK = 100  # products turned into Python objects at a time, so that searches get their turn


@dataclass(frozen=True, slots=True)
class Vectors:
    """What the model makes of one product."""

    fused: np.ndarray  # float32 [E]
    modalities: np.ndarray  # float16 [M, D]
    mask: np.ndarray  # bool [M]


@dataclass(frozen=True, slots=True)
class Applied:
    """One change of the log."""

    seq: int
    product_id: str
    record: Record | None  # the whole product afterwards; None: deleted
    vectors: Vectors | None = None  # None: as they were


class LiveCatalogue:
    """What Retriever searches: a Catalogue's `size, ids, rows, vectors, modality_vectors, mask, vector_index,
    lexical_index, filters` and `traits`, all of them with the changes applied."""

    def __init__(self, base: Catalogue, base_seq: int, product_text: Callable[[Mapping[str, Any]], str], scratch: Path):
        """
        Args:
            base_seq: changes up to this number are in the base.
            product_text: a record's text as word search sees it (Featurizer.product_words).
            scratch: an empty folder of our own.
        """
        self.seq = base_seq
        self.version = 0  # changes with every change of what is found
        self.ids: list[str] = list(base.ids)
        self.rows: dict[str, int] = dict(base.rows)
        self.vector_index = DeltaVectors(base.vector_index, (base.vectors, base.modality_vectors, base.mask))
        self.lexical_index = DeltaWords(base.lexical_index, scratch)
        self.filters = DeltaRecords(base.products)
        self.traits = Traits(base.products)
        self.vectors = self.vector_index.fused
        self.modality_vectors = self.vector_index.modalities
        self.mask = self.vector_index.mask
        self._kind: Kind = base.vector_index.kind
        self._text = product_text
        self._base = base
        self._texts: dict[int, str | None] = {}  # of changed rows

    @property
    def size(self) -> int:
        """R, rows; `present` tells which of them are products now."""
        return len(self.ids)

    @property
    def present(self) -> np.ndarray:
        """bool [R]."""
        return self.filters.present

    @property
    def delta(self) -> int:
        """How much lies beside the base: the largest of its three parts."""
        return max(self.vector_index.delta, self.lexical_index.delta, self.filters.delta)

    def apply(self, changes: Sequence[Applied]) -> None:
        """Apply the changes that follow `seq`, in order; all of them are found on return, or gone.

        Raises:
            ValueError: a product appears for the first time without vectors.
        """
        if not changes:
            return
        new = [c.product_id for c in changes if c.product_id not in self.rows]
        self._grow(list(dict.fromkeys(new)))
        records: dict[int, dict[str, Any]] = {}
        for change in _latest(changes):
            row = self.rows[change.product_id]
            if change.record is None:
                self._drop(row)
                continue
            if change.vectors is not None:
                self.vector_index.put(row, change.vectors.fused, change.vectors.modalities, change.vectors.mask)
            elif not self.present[row]:
                raise ValueError(f"change {change.seq} brings product {change.product_id!r} without vectors")
            records[row] = to_row(change.record)
            text = self._text(records[row])
            if text != self._text_of(row):
                self.lexical_index.put(row, text)
                self._texts[row] = text
        if records:
            self.traits.put(list(records), self.filters.put(records))
        self.lexical_index.commit()
        self.seq = changes[-1].seq
        self.version += 1

    def take_moved(self) -> np.ndarray:
        """int64 rows whose vectors changed since this was last called."""
        moved, self.vector_index.moved = self.vector_index.moved, set()
        return np.array(sorted(moved), np.int64)

    def compaction(self) -> Callable[[], Callable[[], None]]:
        """Take a snapshot; the job returned makes new parts, in any thread, and returns what installs them, which is to
        be called where `apply` is. One at a time."""
        table = self.filters.snapshot()
        present = self.present.copy()
        vectors = self.vector_index.snapshot(self._kind)
        made: list[pa.Table] = []
        words = self.lexical_index.snapshot(lambda: self._all_texts(made[0], present))

        def job() -> Callable[[], None]:
            made.append(table())
            new_vectors, new_words = vectors(), words()

            def install() -> None:
                self.filters.install(made[0])
                self.vector_index.install(new_vectors)
                self.lexical_index.install(new_words)
                self.version += 1

            return install

        return job

    def _grow(self, product_ids: list[str]) -> None:
        for product_id in product_ids:
            self.rows[product_id] = len(self.ids)
            self.ids.append(product_id)
            self._texts[self.rows[product_id]] = None
        if product_ids:
            for part in (self.vector_index, self.lexical_index, self.filters, self.traits):
                part.grow(len(product_ids))

    def _drop(self, row: int) -> None:
        if self.present[row]:
            self.vector_index.drop(row)
            self.filters.drop(row)
            self.lexical_index.put(row, None)
            self._texts[row] = None

    def _text_of(self, row: int) -> str | None:
        if row in self._texts:
            return self._texts[row]
        return self._text(self._base.products.slice(row, 1).to_pylist()[0])

    def _all_texts(self, products: pa.Table, present: np.ndarray) -> Iterator[str | None]:
        for start in range(0, products.num_rows, CHUNK):
            begin = time.perf_counter()
            rows = products.slice(start, CHUNK).to_pylist()
            for row, there in zip(rows, present[start : start + CHUNK], strict=True):
                yield self._text(row) if there else None
            time.sleep(time.perf_counter() - begin)  # whoever indexes them keeps Python to itself meanwhile


def _latest(changes: Sequence[Applied]) -> list[Applied]:
    """One change a product: its last record, with the last vectors given since it was last deleted."""
    found: dict[str, Applied] = {}
    for product_id, group in itertools.groupby(
        sorted(changes, key=lambda change: (change.product_id, change.seq)), key=lambda change: change.product_id
    ):
        vectors = None
        for change in group:
            vectors = None if change.record is None else change.vectors or vectors
            found[product_id] = Applied(change.seq, product_id, change.record, vectors)
    return sorted(found.values(), key=lambda change: change.seq)
