"""Columns whose values compare – amounts, numbers, times – and how a condition's value is read.

Reads Arrow arrays, writes nothing. A row without a value never matches.
"""

import datetime
import math
from abc import ABC, abstractmethod
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuserank.errors import FilterError
from fuserank.retrieval.values import Numbers

OPERATORS = ("lt", "lte", "gt", "gte", "eq")
MAX_VALUES = 1000
_LARGEST = Decimal(2**62)  # beyond every decimal(18, 2), within int64
_EXACT = Context(prec=400)  # digits; more than any amount needs


class _Ordered(ABC):
    """Values that compare; subclasses say how a bound is read."""

    _unit = 1  # how many of what is kept are one

    def __init__(self, values: np.ndarray, valid: np.ndarray):
        self._values, self._valid = values, valid

    def match(self, value: Any) -> np.ndarray:
        if isinstance(value, dict):
            mask = self._valid.copy()
            for operator, bound in operators(value):
                mask &= self._bounded(operator, bound)
            return mask
        mask = np.zeros(len(self._values), bool)
        for one in alternatives(value):
            mask |= self._bounded("eq", one)
        return mask & self._valid

    def values(self, rows: np.ndarray) -> Numbers:
        """What these rows [K] hold."""
        found = np.where(self._valid[rows], self._values[rows] / self._unit, np.nan)
        return Numbers(found, found)

    @abstractmethod
    def _bounded(self, operator: str, bound: Any) -> np.ndarray: ...


class DecimalColumn(_Ordered):
    """Exact decimals, compared as integers of their last place."""

    def __init__(self, values: pa.Array):
        self._scale = values.type.scale
        self._unit = 10**self._scale
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        low_words = np.frombuffer(values.buffers()[1] or b"", np.int64)[2 * values.offset :: 2][: len(values)]
        super().__init__(np.where(valid, low_words, 0), valid)  # decimal128(18, …) fits the low 64 bits

    def _bounded(self, operator: str, bound: Any) -> np.ndarray:
        places = _EXACT.scaleb(_decimal(bound), self._scale)
        places = max(min(places, _LARGEST), -_LARGEST)
        below = int(places.to_integral_value(ROUND_FLOOR))
        above = int(places.to_integral_value(ROUND_CEILING))
        if operator == "eq":
            return self._values == below if below == above else np.zeros(len(self._values), bool)
        return compare(self._values, operator, below if operator in ("lte", "gt") else above)


class RangeColumn(DecimalColumn):
    """Amounts that may be ranges, as a price over variants: a condition holds where the range meets it."""

    def __init__(self, lowest: pa.Array, highest: pa.Array):
        super().__init__(lowest)
        self._highest = DecimalColumn(pc.call_function("coalesce", [highest, lowest]))

    def values(self, rows: np.ndarray) -> Numbers:
        """What these rows hold: from the lowest to the highest."""
        return Numbers(super().values(rows).low, self._highest.values(rows).low)

    def _bounded(self, operator: str, bound: Any) -> np.ndarray:
        if operator == "eq":
            return super()._bounded("lte", bound) & self._highest._bounded("gte", bound)
        return (self._highest if operator in ("gt", "gte") else super())._bounded(operator, bound)


class NumberColumn(_Ordered):
    """Numbers; a bound is rounded to the column's own precision, so that 4.3 finds a stored float32 4.3."""

    def __init__(self, values: pa.Array):
        self._narrow = values.type == pa.float32()
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.float64)
        super().__init__(numbers, valid & ~np.isnan(numbers))

    def _bounded(self, operator: str, bound: Any) -> np.ndarray:
        number = finite(bound)
        with np.errstate(over="ignore"):
            return compare(self._values, operator, float(np.float32(number)) if self._narrow else number)


class TimeColumn(_Ordered):
    """Timestamps (UTC, ms); bounds are ISO 8601 texts or milliseconds since 1970."""

    def __init__(self, values: pa.Array):
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        stamps = pc.fill_null(values.cast(pa.timestamp("ms")).cast(pa.int64()), 0)
        super().__init__(stamps.to_numpy(zero_copy_only=False), valid)

    def _bounded(self, operator: str, bound: Any) -> np.ndarray:
        if not isinstance(bound, str):
            return compare(self._values, operator, finite(bound))
        try:
            moment = datetime.datetime.fromisoformat(bound)
        except ValueError:
            raise FilterError(f"{bound!r:.60} is not an ISO 8601 time.", "Write e.g. 2026-01-31T12:00:00Z.") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return compare(self._values, operator, (moment - epoch) / datetime.timedelta(milliseconds=1))


def compare(values: np.ndarray, operator: str, bound: float) -> np.ndarray:
    """bool [N]."""
    if operator == "lt":
        return values < bound
    if operator == "lte":
        return values <= bound
    if operator == "gt":
        return values > bound
    return values >= bound if operator == "gte" else values == bound


def operators(value: dict) -> list[tuple[str, Any]]:
    """The bounds of a condition; raises FilterError for an unknown one."""
    unknown = [operator for operator in value if operator not in OPERATORS]
    if unknown or not value:
        raise FilterError(
            f"expected {', '.join(OPERATORS)}, not {unknown[:3]!r:.60}.", 'Write e.g. {"price": {"lte": 80}}.'
        )
    return list(value.items())


def alternatives(value: Any) -> list:
    """What a value may equal: itself, or each of a list; raises FilterError."""
    if isinstance(value, dict):
        if set(value) != {"eq"}:
            raise FilterError(f"expected a value or a list of values, not {value!r:.60}.")
        value = value["eq"]
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_VALUES:
        raise FilterError(f"a list may hold at most {MAX_VALUES} values.")
    return values


def is_number(value: Any) -> bool:
    """A JSON number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def finite(value: Any) -> float:
    """A number as a float; raises FilterError for anything else and for NaN."""
    if not is_number(value):
        raise FilterError(f"expected a number, not {value!r:.60}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        raise FilterError("expected a number, not NaN.")
    return number


def _decimal(value: Any) -> Decimal:
    """The decimal a person wrote: 79.99 means 79.99, not the nearest binary fraction."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(max(min(value, 2**62), -(2**62)))
    text = repr(value) if isinstance(value, float) else value.strip() if isinstance(value, str) else "NaN"
    try:
        number = Decimal(text) if len(text) <= 100 else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    if number.is_nan():
        raise FilterError(f"expected an amount, not {value!r:.60}.")
    return number
