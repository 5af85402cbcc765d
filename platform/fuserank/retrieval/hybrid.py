"""One order out of two searches: by vectors and by words.

`linear` adds the word score, as a share of the query's best, to the fused score; `rrf` is reciprocal rank fusion
(Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet"), k = 60. Shapes: K candidates.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fuserank.models.candidates import word_share

Kind = Literal["none", "linear", "rrf"]
RRF_K = 60


@dataclass(frozen=True)
class Hybrid:
    """How much words count beside vectors."""

    kind: Kind = "none"
    weight: float = 0.0  # of words: in units of the fused score (linear), or beside 1 for vectors (rrf)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> "Hybrid":
        """What a generation's manifest says; none where it says nothing."""
        return cls(**manifest.get("hybrid", {}))

    def scores(self, fused: np.ndarray, lexical: np.ndarray) -> np.ndarray:
        """float32 [K] to rank by; what shares no word with the query gets nothing for words.

        Args:
            fused: [K]; lexical: [K] BM25, 0 without a common word.
        """
        if self.kind == "none" or not len(fused):
            return fused
        if self.kind == "linear":
            return (fused + self.weight * word_share(lexical)).astype(np.float32)
        found = lexical > 0
        words = np.where(found, 1 / (RRF_K + _ranks(lexical)), 0)
        return (1 / (RRF_K + _ranks(fused)) + self.weight * words).astype(np.float32)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """From 1, equal scores by place."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks
