"""BM25 of texts that are not in a word index, by that index's own statistics: what tantivy would say of each inside.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond". Reads an index, writes nothing.
"""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tantivy

from fuserank.retrieval.analysis import terms

_EXACT = (
    24  # lengths up to here are kept as they are, larger ones to three bits (tantivy's and Lucene's byte of length)
)


def _length_of(code: int) -> int:
    """The length that a byte stands for."""
    code -= _EXACT
    if code < 0:
        return code + _EXACT
    shift = (code >> 3) - 1
    return _EXACT + (code if shift < 0 else ((code & 7) | 8) << shift)


_LENGTHS = np.array([_length_of(code) for code in range(256)], np.int64)


def score_texts(
    schema: tantivy.Schema, searcher: tantivy.Searcher, field: str, words: Sequence[str], texts: Sequence[str]
) -> np.ndarray:
    """float32 [len(texts)]: BM25 of each; a word that no document has counts for nothing.

    Args:
        words: the query's, as they are searched.
        texts: plain; analysed like documents.
    """
    counted = [Counter(found) for found in (terms(text) for text in texts)]
    lengths = np.array([sum(count.values()) for count in counted], np.int64)
    kept = _LENGTHS[np.searchsorted(_LENGTHS, lengths, side="right") - 1]
    scores = np.zeros(len(texts), np.float64)
    for word in words:
        query = tantivy.Query.term_query(schema, field, word, "freq")
        hits = searcher.search(query, 1, count=False).hits
        if not hits:
            continue
        told = _told(json.loads(query.explain(searcher, hits[0][1]).to_json()))
        idf, k1, b, average = (told[name] for name in ("idf", "k1", "b", "avgdl"))
        times = np.array([count[word] for count in counted], np.float64)
        scores += idf * (k1 + 1) * times / np.maximum(times + k1 * (1 - b + b * kept / average), 1e-9)
    return scores.astype(np.float32)


def _told(node: dict) -> dict[str, float]:
    """Name → value of all that an explanation tells."""
    found = {node["description"].partition(",")[0]: float(node["value"])}
    for part in node.get("details") or ():
        found |= _told(part)
    return found
