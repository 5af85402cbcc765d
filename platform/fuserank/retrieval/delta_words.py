"""Word search over a catalogue that changes: tantivy's own increments on a private copy of the base's folder. For one
compute thread. Writes a scratch folder.

Scores are BM25 over base and changes together. Until tantivy merges a segment, or `install` takes an index made anew,
documents that were replaced or deleted still count in a term's document frequency and in the average length: with a
share s of the documents replaced, N and n_t are too large by at most s·N, which moves every idf a little and all
products alike. Which products match is exact at any time.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tantivy

from fuserank.retrieval.analysis import terms
from fuserank.retrieval.lexical import ROW, LexicalIndex, row_document

HEAP_BYTES = 15_000_000  # tantivy's least
FEW = 100  # changed texts that `install` may be left with: searches wait for it


@dataclass(frozen=True)
class Made:
    """An index made anew, and what of the changes since its snapshot is in it."""

    base: LexicalIndex
    index: tantivy.Index
    writer: tantivy.IndexWriter
    known: dict[int, str | None]


class DeltaWords:
    """`search`, `score` and `corrected` are LexicalIndex's."""

    def __init__(self, base: LexicalIndex, scratch: Path):
        """
        Args:
            scratch: an empty folder of our own.
        """
        self.size = base.size
        self._base, self._scratch = base, scratch
        self._index: tantivy.Index | None = None  # from the first change on
        self._writer: tantivy.IndexWriter | None = None
        self._now = base
        self._copies = 0
        self._since: dict[int, str | None] | None = None  # what has changed since a compaction began
        self.delta = 0  # documents put or dropped since the base was made

    def grow(self, count: int) -> None:
        """Room for `count` further rows without a document."""
        self.size += count
        self._now.size = self.size

    def put(self, row: int, text: str | None) -> None:
        """The row's text from now on, None for no document; seen after `commit`."""
        writer = self._open()
        _replace(writer, self._base.schema, row, text)
        if text is not None and self._now.vocabulary is not None:
            self._now.vocabulary.add(terms(text))
        self.delta += 1
        if self._since is not None:
            self._since[row] = text

    def commit(self) -> None:
        """Search what was put."""
        if self._writer is None or self._index is None:
            return
        self._writer.commit()
        self._index.reload()
        self._now = self._opened(self._index, self._now.folder)

    def search(self, texts: list[str], k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As LexicalIndex.search."""
        return self._now.search(texts, k, allowed)

    def score(self, text: str, rows: np.ndarray) -> np.ndarray:
        """As LexicalIndex.score."""
        return self._now.score(text, rows)

    def score_texts(self, text: str, others: Sequence[str]) -> np.ndarray:
        """As LexicalIndex.score_texts."""
        return self._now.score_texts(text, others)

    def corrected(self, text: str) -> str:
        """As LexicalIndex.corrected."""
        return self._now.corrected(text)

    def snapshot(self, texts: Callable[[], Iterable[str | None]]) -> Callable[[], Made]:
        """What makes an index anew of the texts as they are now, for any thread; `install` takes its result.

        Args:
            texts: a text a row, None for rows without a document; called in that thread.
        """
        self._since = since = {}
        self._copies += 1
        folder = self._scratch / f"words{self._copies}"
        typos = self._base.typos

        def make() -> Made:
            base = LexicalIndex.build(texts(), folder, typos)
            index = tantivy.Index.open(str(folder))
            made = Made(base, index, index.writer(HEAP_BYTES, 1), {})
            while len(missing := _missing(since.copy(), made.known)) > FEW:
                for row, text in missing.items():
                    _replace(made.writer, base.schema, row, text)
                made.writer.commit()
                made.known.update(missing)
            return made

        return make

    def install(self, made: Made) -> None:
        """Answer from the new index; what has changed since the snapshot and is not in it is put again."""
        since, self._since = self._since or {}, None
        self._close()
        self._base, self._index, self._writer = made.base, made.index, made.writer
        self._now = made.base
        self.delta = len(made.known)
        for row, text in _missing(since, made.known).items():
            self.put(row, text)
        self.commit()

    def _opened(self, index: tantivy.Index, folder: Path) -> LexicalIndex:
        return LexicalIndex(index, folder, self.size, self._base.typos, self._now.vocabulary)

    def _open(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._copies += 1
            folder = self._scratch / f"words{self._copies}"
            shutil.copytree(self._base.folder, folder, copy_function=_link, ignore=shutil.ignore_patterns("*.lock"))
            self._index = tantivy.Index.open(str(folder))
            self._writer = self._index.writer(HEAP_BYTES, 1)
            self._now = self._opened(self._index, folder)
        return self._writer

    def _close(self) -> None:
        old = self._now.folder
        if self._writer is not None:
            self._writer.wait_merging_threads()
            self._writer = self._index = None
        if old.is_relative_to(self._scratch):
            shutil.rmtree(old, ignore_errors=True)  # searchers that still have it mapped keep it


def _missing(since: dict[int, str | None], known: dict[int, str | None]) -> dict[int, str | None]:
    return {row: text for row, text in since.items() if row not in known or known[row] != text}


def _replace(writer: tantivy.IndexWriter, schema: tantivy.Schema, row: int, text: str | None) -> None:
    # by query, because deleting by term takes the number for a signed one and finds nothing
    writer.delete_documents_by_query(tantivy.Query.term_query(schema, ROW, row, "basic"))
    if text is not None:
        writer.add_document(row_document(row, text))


def _link(source: str, target: str) -> None:
    """tantivy replaces files and never writes into one, so a second name is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
