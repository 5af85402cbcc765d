"""Columns of the products table, prepared for filtering and counting: each turns one condition's value into a bool mask
[N], and tells what rows hold.

Reads Arrow arrays, writes nothing. A row without a value never matches.
"""

import math
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuserank.errors import FilterError
from fuserank.retrieval.ordered import (
    DecimalColumn,
    NumberColumn,
    TimeColumn,
    alternatives,
    compare,
    finite,
    is_number,
    operators,
)
from fuserank.retrieval.values import Texts, Values


class Column(Protocol):
    """One filterable field."""

    def match(self, value: Any) -> np.ndarray:
        """bool [N]. A scalar means equal, a list means one of, an object holds lt, lte, gt, gte, eq."""
        ...

    def values(self, rows: np.ndarray) -> Values:
        """What these rows [K] hold."""
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
        self._texts = texts
        self._by_row: tuple[np.ndarray, np.ndarray] | None = None  # from the first `values` on

    def values(self, rows: np.ndarray) -> Texts:
        """What these rows hold, each text once."""
        if self._by_row is None:
            order = np.argsort(self._rows, kind="stable")
            codes = np.repeat(np.arange(len(self._texts)), np.diff(self._starts))[order]
            self._by_row = np.searchsorted(self._rows[order], np.arange(self._size + 1)), codes
        starts, codes = self._by_row
        counts = starts[rows + 1] - starts[rows]
        owner = np.repeat(np.arange(len(rows)), counts)
        places = np.arange(len(owner)) + np.repeat(starts[rows] - (np.cumsum(counts) - counts), counts)
        pairs = np.unique(np.stack([owner, codes[places]]), axis=1)
        return Texts(len(rows), pairs[0], pairs[1], self._texts)

    def match(self, value: Any) -> np.ndarray:
        mask = np.zeros(self._size, bool)
        for one in alternatives(value):
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
        for operator, bound in operators(value):
            if operator == "eq" and not is_number(bound):
                equal = np.zeros(len(chosen), bool)
                equal[self._equal(bound)] = True
                chosen &= equal
            else:
                chosen &= compare(self._numbers, operator, finite(bound))
        mask = np.zeros(self._size, bool)
        for code in np.flatnonzero(chosen):
            mask[self._rows[self._starts[code] : self._starts[code + 1]]] = True
        return mask

    def _equal(self, value: Any) -> list[int]:
        if isinstance(value, bool):
            text = "true" if value else "false"
            return [code for code, truth in enumerate(self._truths) if truth == text]
        if is_number(value):
            return np.flatnonzero(self._numbers == finite(value)).tolist()
        return super()._equal(value)


class BoolColumn:
    """true, false or missing."""

    def __init__(self, values: pa.Array):
        self._true = values.fill_null(False).to_numpy(zero_copy_only=False)
        self._false = values.is_valid().to_numpy(zero_copy_only=False) & ~self._true

    def values(self, rows: np.ndarray) -> Texts:
        """What these rows hold: true and false."""
        true, false = self._true[rows], self._false[rows]
        owner = np.flatnonzero(true | false)
        return Texts(len(rows), owner, true[owner].astype(np.int64), [False, True])

    def match(self, value: Any) -> np.ndarray:
        mask = np.zeros(len(self._true), bool)
        for one in alternatives(value):
            if not isinstance(one, bool):
                raise FilterError(f"expected true or false, not {one!r:.60}.")
            mask |= self._true if one else self._false
        return mask


def _number_or_nan(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
