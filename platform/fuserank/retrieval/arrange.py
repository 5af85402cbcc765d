"""The order of a result set by its products' own fields, and its groups. Reads and writes nothing.

K rows of the result set.
"""

from collections.abc import Sequence

import numpy as np

from fuserank.errors import FilterError
from fuserank.retrieval.facets import Fields
from fuserank.retrieval.values import Numbers, Texts

SORTED = ("price", "rating", "review_count", "updated_at")


def sorted_places(
    keys: Sequence[tuple[str, bool]], fields: Fields, rows: np.ndarray, relevance: np.ndarray
) -> np.ndarray:
    """int64 [K]: places among the rows, first the first. Products without a value come last either way; equal ones by
    relevance, then by row. A price that is a range counts as its lowest.

    Args:
        keys: fields out of SORTED and whether they descend, the most important first.
        relevance: float32 [K].

    Raises:
        FilterError: a field that is none of SORTED.
    """
    columns = [rows, -relevance]  # np.lexsort wants the least important first
    for name, descending in reversed(keys):
        found = fields.values(name, rows) if name in SORTED else None
        if not isinstance(found, Numbers):
            raise FilterError(f"there is no order by {name!r:.60}.", f"Fields: {', '.join(SORTED)}.")
        columns.append(np.nan_to_num(-found.low if descending else found.low, nan=np.inf))
    return np.lexsort(columns)


def group_codes(field: str, fields: Fields, rows: np.ndarray) -> np.ndarray:
    """int64 [K]: equal for rows with the same text; a row without one is a group of its own. Raises FilterError."""
    found = fields.values(field, rows)
    assert isinstance(found, Texts)
    codes = len(found.names) + np.arange(len(rows))
    codes[found.owner] = found.codes
    return codes


def grouped(order: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """The members of each group as they stand in an order; groups by their first.

    Args:
        order: int64 [n], indices into `codes`.
    """
    if not len(order):
        return []
    _, first, code = np.unique(codes[order], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[code]  # of each member's group
    together = np.argsort(rank, kind="stable")
    return np.split(order[together], np.flatnonzero(np.diff(rank[together])) + 1)
