"""Columns of the products table, prepared for filtering: each turns one condition's value into a bool mask [N].

Reads Arrow arrays, writes nothing. A row without a value never matches.
"""

import datetime
import math
from abc import ABC, abstractmethod
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuserank.errors import FilterError

OPERATORS = ("lt", "lte", "gt", "gte", "eq")
MAX_VALUES = 1000
_LARGEST = Decimal(2**62)  # beyond every decimal(18, 2), within int64
_EXACT = Context(prec=400)  # digits; more than any amount needs


class Column(Protocol):
    """One filterable field."""

    def match(self, value: Any) -> np.ndarray:
        """bool [N]. A scalar means equal, a list means one of, an object holds lt, lte, gt, gte, eq."""
        ...


def column_of(values: pa.Array) -> Column:
    """The column kind for an Arrow array of text, bool, decimal, number or timestamp."""
    kind = values.type
    if pa.types.is_boolean(kind):
        return BoolColumn(values)
    if pa.types.is_decimal(kind):
        return DecimalColumn(values)
    if pa.types.is_timestamp(kind):
        return TimeColumn(values)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        codes = values.dictionary_encode()
        rows = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        return TextColumn(len(values), rows, codes.indices.drop_null().to_numpy(), codes.dictionary.to_pylist())
    return NumberColumn(values)


def category_column(values: pa.Array) -> "TextColumn":
    """A list-of-text column: a row matches if any of its entries does."""
    lengths = pc.call_function("list_value_length", [values]).fill_null(0).to_numpy(zero_copy_only=False)
    flat = values.flatten()
    present = flat.is_valid().to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(values)), lengths)[present]
    codes = flat.dictionary_encode()
    return TextColumn(len(values), rows, codes.indices.drop_null().to_numpy(), codes.dictionary.to_pylist())


def split_attributes(values: pa.Array) -> dict[str, Column]:
    """A map<text, text> column → one column an attribute."""
    assert isinstance(values, pa.MapArray)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    offsets = values.offsets.to_numpy()
    lengths = np.where(valid, np.diff(offsets), 0)
    rows = np.repeat(np.arange(len(values)), lengths)
    places = np.arange(len(rows)) + np.repeat(offsets[:-1] - (np.cumsum(lengths) - lengths), lengths)
    keys = values.keys.take(pa.array(places, pa.int64())).dictionary_encode()
    items = values.items.take(pa.array(places, pa.int64()))
    names = keys.dictionary.to_pylist()
    codes = keys.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    columns: dict[str, Column] = {}
    for code, name in enumerate(names):
        chosen = order[starts[code] : starts[code + 1]]
        part = items.take(pa.array(chosen, pa.int64()))
        has = part.is_valid().to_numpy(zero_copy_only=False)
        encoded = part.drop_null().dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        columns[name] = AttributeColumn(len(values), rows[chosen[has]], encoded.indices.to_numpy(), texts)
    return columns


class TextColumn:
    """Text, kept as value → rows."""

    def __init__(self, size: int, rows: np.ndarray, codes: np.ndarray, texts: list[str]):
        order = np.argsort(codes, kind="stable")
        self._size = size
        self._rows = rows[order]
        self._starts = np.searchsorted(codes[order], np.arange(len(texts) + 1))
        self._codes = {text: code for code, text in enumerate(texts)}

    def match(self, value: Any) -> np.ndarray:
        mask = np.zeros(self._size, bool)
        for one in _alternatives(value):
            for code in self._equal(one):
                mask[self._rows[self._starts[code] : self._starts[code + 1]]] = True
        return mask

    def _equal(self, value: Any) -> list[int]:
        if not isinstance(value, str):
            raise FilterError(f"expected text or a list of texts, not {value!r:.60}.")
        return [self._codes[value]] if value in self._codes else []


class AttributeColumn(TextColumn):
    """An attribute: the text of a typed value. Numbers compare as numbers, true and false as their text."""

    def __init__(self, size: int, rows: np.ndarray, codes: np.ndarray, texts: list[str]):
        super().__init__(size, rows, codes, texts)
        self._numbers = np.array([_number_or_nan(text) for text in texts])
        self._truths = [text.lower() for text in texts]

    def match(self, value: Any) -> np.ndarray:
        if not isinstance(value, dict):
            return super().match(value)
        chosen = np.ones(len(self._numbers), bool)
        for operator, bound in _operators(value):
            if operator == "eq" and not _is_number(bound):
                equal = np.zeros(len(chosen), bool)
                equal[self._equal(bound)] = True
                chosen &= equal
            else:
                chosen &= _compare(self._numbers, operator, _finite(bound))
        mask = np.zeros(self._size, bool)
        for code in np.flatnonzero(chosen):
            mask[self._rows[self._starts[code] : self._starts[code + 1]]] = True
        return mask

    def _equal(self, value: Any) -> list[int]:
        if isinstance(value, bool):
            text = "true" if value else "false"
            return [code for code, truth in enumerate(self._truths) if truth == text]
        if _is_number(value):
            return np.flatnonzero(self._numbers == _finite(value)).tolist()
        return super()._equal(value)


class BoolColumn:
    """true, false or missing."""

    def __init__(self, values: pa.Array):
        self._true = values.fill_null(False).to_numpy(zero_copy_only=False)
        self._false = values.is_valid().to_numpy(zero_copy_only=False) & ~self._true

    def match(self, value: Any) -> np.ndarray:
        mask = np.zeros(len(self._true), bool)
        for one in _alternatives(value):
            if not isinstance(one, bool):
                raise FilterError(f"expected true or false, not {one!r:.60}.")
            mask |= self._true if one else self._false
        return mask


class _Ordered(ABC):
    """Values that compare; subclasses say how a bound is read."""

    def __init__(self, values: np.ndarray, valid: np.ndarray):
        self._values, self._valid = values, valid

    def match(self, value: Any) -> np.ndarray:
        if isinstance(value, dict):
            mask = self._valid.copy()
            for operator, bound in _operators(value):
                mask &= self._bounded(operator, bound)
            return mask
        mask = np.zeros(len(self._values), bool)
        for one in _alternatives(value):
            mask |= self._bounded("eq", one)
        return mask & self._valid

    @abstractmethod
    def _bounded(self, operator: str, bound: Any) -> np.ndarray: ...


class DecimalColumn(_Ordered):
    """Exact decimals, compared as integers of their last place."""

    def __init__(self, values: pa.Array):
        self._scale = values.type.scale
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
        return _compare(self._values, operator, below if operator in ("lte", "gt") else above)


class NumberColumn(_Ordered):
    """Numbers; a bound is rounded to the column's own precision, so that 4.3 finds a stored float32 4.3."""

    def __init__(self, values: pa.Array):
        self._narrow = values.type == pa.float32()
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.float64)
        super().__init__(numbers, valid & ~np.isnan(numbers))

    def _bounded(self, operator: str, bound: Any) -> np.ndarray:
        number = _finite(bound)
        with np.errstate(over="ignore"):
            return _compare(self._values, operator, float(np.float32(number)) if self._narrow else number)


class TimeColumn(_Ordered):
    """Timestamps (UTC, ms); bounds are ISO 8601 texts or milliseconds since 1970."""

    def __init__(self, values: pa.Array):
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        stamps = pc.fill_null(values.cast(pa.timestamp("ms")).cast(pa.int64()), 0)
        super().__init__(stamps.to_numpy(zero_copy_only=False), valid)

    def _bounded(self, operator: str, bound: Any) -> np.ndarray:
        if not isinstance(bound, str):
            return _compare(self._values, operator, _finite(bound))
        try:
            moment = datetime.datetime.fromisoformat(bound)
        except ValueError:
            raise FilterError(f"{bound!r:.60} is not an ISO 8601 time.", "Write e.g. 2026-01-31T12:00:00Z.") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return _compare(self._values, operator, (moment - epoch) / datetime.timedelta(milliseconds=1))


def _compare(values: np.ndarray, operator: str, bound: float) -> np.ndarray:
    if operator == "lt":
        return values < bound
    if operator == "lte":
        return values <= bound
    if operator == "gt":
        return values > bound
    return values >= bound if operator == "gte" else values == bound


def _operators(value: dict) -> list[tuple[str, Any]]:
    unknown = [operator for operator in value if operator not in OPERATORS]
    if unknown or not value:
        raise FilterError(
            f"expected {', '.join(OPERATORS)}, not {unknown[:3]!r:.60}.", 'Write e.g. {"price": {"lte": 80}}.'
        )
    return list(value.items())


def _alternatives(value: Any) -> list:
    if isinstance(value, dict):
        if set(value) != {"eq"}:
            raise FilterError(f"expected a value or a list of values, not {value!r:.60}.")
        value = value["eq"]
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_VALUES:
        raise FilterError(f"a list may hold at most {MAX_VALUES} values.")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> float:
    if not _is_number(value):
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


def _number_or_nan(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
