"""Counts of a result set by field, for a shop's filters. Reads and writes nothing.

K rows of the result set.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fuserank.errors import InputError
from fuserank.retrieval.filters import ATTRIBUTE
from fuserank.retrieval.values import Numbers, Texts, Values

FIELDS = ("brand", "category", "currency", "in_stock", "price", "rating", "review_count")
MOST_VALUES = 50  # shown of one field
RANGES = 5  # of one field's numbers, at most
NAMED = 30  # fields that a refusal names


class Fields(Protocol):
    """A catalogue's `filters`."""

    def values(self, field: str, rows: np.ndarray) -> Values: ...

    def fields(self) -> list[str]: ...


def refuse_unknown(asked: Sequence[str], known: Fields) -> None:
    """Raises InputError for a field that cannot be counted; it names those that can."""
    there = {*FIELDS, *(name for name in known.fields() if name.startswith(ATTRIBUTE))}
    for field in asked:
        if field not in there:
            near = difflib.get_close_matches(field, there, n=1, cutoff=0.6)
            names = [*FIELDS, *sorted(there.difference(FIELDS))]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            hint = f"Did you mean `{near[0]}`? " if near else ""
            raise InputError(
                f"facets: there is no field {field[:60]!r} to count.",
                f"{hint}Fields: {', '.join(names[:NAMED])}{more}.",
            )


def facet(found: Values) -> dict[str, Any]:
    """One field's counts: `values` of texts and of true and false, largest first, equal ones by name; `min`, `max` and
    `ranges` of numbers. Products without a value count nowhere."""
    return _values(found) if isinstance(found, Texts) else _ranges(found)


def relaxed(condition: dict[str, Any] | None, field: str) -> dict[str, Any] | None:
    """The filter without the field's own conditions, so that its facet shows what else could be chosen. Only conditions
    that must hold in any case are taken out: the filter's own keys and those in its `and`."""
    if condition is None:
        return None
    kept: dict[str, Any] = {}
    for key, value in condition.items():
        if key == field:
            continue
        if key == "and" and isinstance(value, list):
            parts = [relaxed(part, field) if isinstance(part, dict) else part for part in value]
            value = [part for part in parts if part is not None]
            if not value:
                continue
        kept[key] = value
    return kept or None


def _values(found: Texts) -> dict[str, Any]:
    counts = np.bincount(found.codes, minlength=len(found.names))
    codes = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], str(found.names[code])))
    shown = codes[:MOST_VALUES]
    return {
        "values": [{"value": found.names[code], "count": int(counts[code])} for code in shown],
        "other": int(counts[codes[MOST_VALUES:]].sum()),
    }


def _ranges(found: Numbers) -> dict[str, Any]:
    """A range counts whatever a filter from `from` to below `to` lets through; a product whose price is a range itself
    may be in several."""
    there = ~np.isnan(found.low)
    low, high = found.low[there], found.high[there]
    if not len(low):
        return {"min": None, "max": None, "ranges": []}
    cuts = {_round(cut) for cut in np.quantile(low, np.arange(1, RANGES) / RANGES)}
    cuts = sorted(cut for cut in cuts if low.min() < cut <= high.max())
    ranges = [
        {
            "from": begin,
            "to": end,
            "count": int(
                np.count_nonzero(
                    (high >= (-math.inf if begin is None else begin)) & (low < (math.inf if end is None else end))
                )
            ),
        }
        for begin, end in zip([None, *cuts], [*cuts, None], strict=True)
    ]
    return {"min": float(low.min()), "max": float(high.max()), "ranges": ranges}


def _round(number: float) -> float:
    """To two digits, as people write limits."""
    return float(f"{number:.2g}")
