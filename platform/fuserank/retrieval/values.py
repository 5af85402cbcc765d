"""What some rows of a products table hold in one field, to be counted, sorted and grouped. Reads and writes nothing.

K rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Texts:
    """Texts (or true and false); a row may hold several, each once."""

    size: int  # K
    owner: np.ndarray  # int64 [n]: which of the rows
    codes: np.ndarray  # int64 [n]: which of `names` it holds
    names: Sequence[str | bool]


@dataclass(frozen=True)
class Numbers:
    """Numbers, NaN where a row has none."""

    low: np.ndarray  # float64 [K]
    high: np.ndarray  # float64 [K]; as `low` where a row holds no range


Values = Texts | Numbers


def merged(size: int, parts: Sequence[tuple[np.ndarray, Values]]) -> Values:
    """One field's values from several tables.

    Args:
        size: K.
        parts: places among the K rows that a table tells of, and what it says of them, in that order.
    """
    if isinstance(parts[0][1], Numbers):
        low, high = np.full(size, np.nan), np.full(size, np.nan)
        for places, part in parts:
            assert isinstance(part, Numbers)
            low[places], high[places] = part.low, part.high
        return Numbers(low, high)
    names: dict[str | bool, int] = {}
    owners, codes = [], []
    for places, part in parts:
        assert isinstance(part, Texts)
        known = np.array([names.setdefault(name, len(names)) for name in part.names], np.int64)
        owners.append(places[part.owner])
        codes.append(known[part.codes] if len(part.codes) else part.codes)
    return Texts(size, np.concatenate(owners), np.concatenate(codes), list(names))
