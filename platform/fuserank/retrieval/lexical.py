"""Word search (BM25, k1 = 1.2, b = 0.75) with tantivy over terms made by `analysis.terms`; filters are exact.

Reads and writes one folder, `lexical/`. A truncated list is never filtered afterwards: narrow filters become part of
the query, wide ones grow the list until k allowed hits are in it or none is left. Robertson and Zaragoza 2009, "The
Probabilistic Relevance Framework: BM25 and Beyond"; tantivy rounds lengths above 40 terms to one byte, as Lucene does.
With `typos`, a query's words that no document has are read as the nearest terms there are (typos.py).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tantivy

from fuserank.errors import StageError
from fuserank.retrieval.analysis import terms
from fuserank.retrieval.bm25 import score_texts
from fuserank.retrieval.typos import Vocabulary, corrected

TERMS = "terms"
ROW = "row"
SETTINGS = "fuserank.json"  # beside tantivy's own files
MAX_QUERY_TERMS = 128  # the rest of a longer query is not searched
HEAP_BYTES = 256_000_000  # one segment up to roughly a million products
FEW_ROWS = 512  # up to here, a query names its rows one by one; cheaper than a term set below that
NARROW = 200  # beyond that, a filter is a term set only below 1/200 of the rows; else the list grows
LONGEST_TEXT = 500  # characters; nobody types more, and pasted texts are searched as they are
KEPT_TEXTS = 1024  # queries whose correction is remembered


class LexicalIndex:
    """tantivy over one text a row. Use `build` or `open`; searching is thread-safe."""

    def __init__(
        self,
        index: tantivy.Index,
        folder: Path,
        size: int | None = None,
        typos: bool = False,
        vocabulary: Vocabulary | None = None,
    ):
        """
        Args:
            size: how many rows there are; as many as documents if None.
            typos: whether words that no document has are corrected.
            vocabulary: at least the terms there are; read from the index at the first unknown word if None.
        """
        self.folder, self.typos, self.vocabulary = folder, typos, vocabulary
        self.schema = index.schema
        self._searcher = index.searcher()
        self.size: int = self._searcher.num_docs if size is None else size
        self._corrections: dict[str, str] = {}

    @classmethod
    def build(cls, texts: Iterable[str | None], folder: str | Path, typos: bool = False) -> "LexicalIndex":
        """Index texts in row order into an empty folder (created if needed); a row of None gets no document."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        schema = (
            tantivy.SchemaBuilder()
            .add_text_field(TERMS, tokenizer_name="whitespace", index_option="freq")
            .add_unsigned_field(ROW, indexed=True, fast=True)
            .build()
        )
        index = tantivy.Index(schema, path=str(folder), reuse=False)
        writer = index.writer(HEAP_BYTES, 1)  # one thread: documents keep the order of rows, so equal scores do too
        size = 0
        for row, text in enumerate(texts):
            size += 1
            if text is not None:
                writer.add_document(row_document(row, text))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        (Path(folder) / SETTINGS).write_text(json.dumps({"typos": typos}), encoding="utf-8")
        return cls(index, Path(folder), size, typos)

    @classmethod
    def open(cls, folder: str | Path) -> "LexicalIndex":
        """Open a built folder (memory-mapped).

        Raises:
            StageError: the folder holds no readable index.
        """
        settings = Path(folder) / SETTINGS
        try:
            typos = settings.is_file() and json.loads(settings.read_text(encoding="utf-8"))["typos"]
            return cls(tantivy.Index.open(str(folder)), Path(folder), typos=typos)
        except (ValueError, KeyError, OSError) as error:
            raise StageError(f"{folder} is not a readable lexical index.", "Run `fuserank index` again.") from error

    def search(self, texts: list[str], k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The k rows with the largest BM25, best first, equal scores by row.

        Args:
            allowed: bool [N], or None for every row.

        Returns:
            rows int64 [B, k] and scores float32 [B, k]; where fewer than k rows share a term with the query, -1 and 0.
        """
        rows = np.full((len(texts), k), -1, np.int64)
        scores = np.zeros((len(texts), k), np.float32)
        for i, text in enumerate(texts):
            query = self._query(text)
            if query is not None and k > 0 and self.size > 0:
                found, values = self._top(query, k, allowed)
                rows[i, : len(found)], scores[i, : len(found)] = found, values
        return rows, scores

    def score(self, text: str, rows: np.ndarray) -> np.ndarray:
        """BM25 of the given rows, float32 [len(rows)]; 0 where no term is shared."""
        query = self._query(text)
        if query is None or len(rows) == 0:
            return np.zeros(len(rows), np.float32)
        if len(rows) <= FEW_ROWS:
            found, values = self._hits(self._among(query, np.asarray(rows)), len(rows))
        else:
            found, values = self._hits(query, self.size)
        every = np.zeros(self.size, np.float32)
        every[found] = values
        return every[rows]

    def score_texts(self, text: str, others: Sequence[str]) -> np.ndarray:
        """BM25 of texts that are not in the index, as if they were and nothing else had changed, float32."""
        words = terms(self.corrected(text))[:MAX_QUERY_TERMS]
        return score_texts(self.schema, self._searcher, TERMS, words, others)

    def _documents(self, term: str) -> int:
        """How many documents have the term; deleted ones, which tantivy's own frequency counts, do not."""
        if not self._searcher.doc_freq(TERMS, term):
            return 0
        query = tantivy.Query.term_query(self.schema, TERMS, term, "basic")
        return self._searcher.search(query, 1, count=True).count  # type: ignore[attr-defined]  # not in the stub

    def _known(self) -> Vocabulary:
        if self.vocabulary is None:
            self.vocabulary = Vocabulary(term for term, _ in self._searcher.terms_with_prefix(TERMS, ""))
        return self.vocabulary

    def corrected(self, text: str) -> str:
        """The text as it is searched: with `typos`, its unknown words corrected."""
        if not self.typos or len(text) > LONGEST_TEXT:
            return text
        if text not in self._corrections:
            if len(self._corrections) >= KEPT_TEXTS:
                self._corrections.clear()
            self._corrections[text] = corrected(text, self._documents, self._known)
        return self._corrections[text]

    def _query(self, text: str) -> tantivy.Query | None:
        words = terms(self.corrected(text))[:MAX_QUERY_TERMS]
        if not words:
            return None
        should = tantivy.Occur.Should
        return tantivy.Query.boolean_query(
            [(should, tantivy.Query.term_query(self.schema, TERMS, word, "freq")) for word in words]
        )

    def _among(self, query: tantivy.Query, rows: np.ndarray) -> tantivy.Query:
        """`query` restricted to these rows, scores unchanged."""
        values = rows.tolist()
        if len(values) <= FEW_ROWS:
            clauses = [
                (tantivy.Occur.Should, tantivy.Query.term_query(self.schema, ROW, row, "basic")) for row in values
            ]
            within = tantivy.Query.boolean_query(clauses)
        else:
            within = tantivy.Query.term_set_query(self.schema, ROW, values)
        must = tantivy.Occur.Must
        return tantivy.Query.boolean_query([(must, tantivy.Query.const_score_query(within, 0.0)), (must, query)])

    def _hits(self, query: tantivy.Query, limit: int) -> tuple[np.ndarray, np.ndarray]:
        hits = self._searcher.search(query, limit, count=False).hits
        rows = self._searcher.fast_field_values(ROW, [address for _, address in hits])
        found = np.array(rows, dtype=np.int64)
        scores = np.array([score for score, _ in hits], dtype=np.float32)
        order = np.lexsort((found, -scores))
        return found[order], scores[order]

    def _top(self, query: tantivy.Query, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        matches = self.size if allowed is None else int(np.count_nonzero(allowed))
        if matches == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        if allowed is None or matches == self.size:
            return self._hits(query, min(k, self.size))
        if matches <= max(FEW_ROWS, self.size // NARROW):
            return self._hits(self._among(query, np.flatnonzero(allowed)), min(k, matches))
        limit = min(self.size, int(1.5 * k * self.size / matches) + 16)
        while True:
            rows, scores = self._hits(query, limit)
            keep = allowed[rows]
            if np.count_nonzero(keep) >= k or len(rows) < limit or limit == self.size:
                return rows[keep][:k], scores[keep][:k]
            limit = min(self.size, 4 * limit)


def row_document(row: int, text: str) -> tantivy.Document:
    document = tantivy.Document()
    document.add_text(TERMS, " ".join(terms(text)))
    document.add_unsigned(ROW, row)
    return document
