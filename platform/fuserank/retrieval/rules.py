"""A shop's own say in what is recommended: boost, bury, caps, variety, pins – in this order, by config (`serve.rules`).

Reads the catalogue's fields and fused vectors, writes nothing. K candidates · N products.
"""

import logging
from collections.abc import Sequence

import numpy as np

from fuserank.config import Rules
from fuserank.errors import FilterError
from fuserank.retrieval.arrange import group_codes
from fuserank.retrieval.pipeline import Retriever

log = logging.getLogger("fuserank.retrieval")
AHEAD = 4  # times the answer's length: how many candidates caps and variety choose from
LEAST = 40  # of them


class Ruled:
    """Rules over one catalogue. One that cannot hold there is logged and left out: a field may come with the next
    generation, and no answer fails for it."""

    def __init__(self, rules: Rules, retriever: Retriever):
        self._retriever, self._pins, self._diversity = retriever, rules.pins, rules.diversity
        self._boosts = [boost for place, boost in enumerate(rules.boost) if self._reads(boost.filter, place)]
        self._caps = {field: most for field, most in rules.caps.items() if self._counts(field)}

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self._boosts or self._caps or self._diversity or self._pins)

    def _reads(self, filter: dict, place: int) -> bool:
        try:
            self._retriever.allowed(filter)
        except FilterError as error:
            log.error("serve.rules.boost[%d] is left out: %s %s", place, error.message, error.hint)
            return False
        return True

    def _counts(self, field: str) -> bool:
        try:
            group_codes(field, self._retriever.catalogue.filters, np.zeros(0, np.int64))
        except FilterError as error:
            log.error("serve.rules.caps.%s is left out: %s %s", field, error.message, error.hint)
            return False
        return True

    def depth(self, wanted: int) -> int:
        """How many candidates to find for an answer of so many."""
        return max(AHEAD * wanted, LEAST) if self else wanted

    def apply(
        self, rows: np.ndarray, score: np.ndarray, wanted: int, allowed: np.ndarray | None, excluded: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 [≤ wanted] in the order to show, and their scores with what boosts added; a pin that the model
        did not find has the score of the row that it pushed aside.

        Args:
            rows, score: [K] candidates. allowed: bool [N], the request's filter; None: all. excluded: rows never shown.
        """
        if not len(rows):
            return self._pinned(rows, score, wanted, allowed, excluded)
        score = self._boosted(rows, score)
        best = np.lexsort((rows, -score))
        rows, score = rows[best], score[best]
        kept = self._varied(rows, score, self._codes(rows), wanted)
        return self._pinned(rows[kept], score[kept], wanted, allowed, excluded)

    def _boosted(self, rows: np.ndarray, score: np.ndarray) -> np.ndarray:
        """In spreads of the candidates' own scores, so that a boost means the same to whatever model."""
        spread, score = float(np.std(score)) or 1.0, score.copy()
        for boost in self._boosts:
            matching = self._retriever.allowed(boost.filter)
            assert matching is not None
            score[matching[rows]] += boost.by * spread
        return score

    def _codes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Capped field → code of each row."""
        fields = self._retriever.catalogue.filters
        return {field: group_codes(field, fields, rows) for field in self._caps}

    def _varied(self, rows: np.ndarray, score: np.ndarray, codes: dict[str, np.ndarray], wanted: int) -> np.ndarray:
        """Places of ≤ wanted rows, one after the other: the best by (1 − d) · score − d · likeness to the most alike
        shown before (maximal marginal relevance, Carbonell & Goldstein 1998), of those whose caps are not used up.
        Score and likeness are in units of their spread over the candidates."""
        weight, count = self._diversity, len(rows)
        vectors = np.asarray(self._retriever.catalogue.vectors[rows], np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        alike = vectors @ vectors.T if weight else np.zeros((count, count), np.float32)
        worth = (1 - weight) * (score - score.mean()) / (float(score.std()) or 1.0)
        units = weight / (float(alike.std()) or 1.0)
        closest, open_, chosen = np.full(count, -np.inf, np.float32), np.ones(count, bool), []
        while len(chosen) < wanted and open_.any():
            value = worth - units * closest if chosen and weight else worth
            place = int(np.argmax(np.where(open_, value, -np.inf)))
            chosen.append(place)
            open_[place] = False
            closest = np.maximum(closest, alike[place])
            for field, most in self._caps.items():
                same = codes[field] == codes[field][place]
                if int(same[chosen].sum()) >= most:
                    open_ &= ~same
        return np.array(chosen, np.int64)

    def _pinned(
        self, rows: np.ndarray, score: np.ndarray, wanted: int, allowed: np.ndarray | None, excluded: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        catalogue = self._retriever.catalogue
        for pin in sorted(self._pins, key=lambda pin: pin.place):
            row = catalogue.rows.get(pin.product_id)
            shown = catalogue.filters.present if allowed is None else allowed
            if row is None or row in excluded or not shown[row] or not catalogue.filters.present[row]:
                continue  # gone, seen, or not what was asked for: a pin never overrides those
            found = np.flatnonzero(rows == row)
            place = min(pin.place - 1, len(rows) - len(found))
            own = score[found[0]] if len(found) else (score[place] if place < len(score) else 0.0)
            rows, score = np.delete(rows, found), np.delete(score, found)
            rows, score = np.insert(rows, place, row), np.insert(score, place, own)
        return rows[:wanted], score[:wanted]
