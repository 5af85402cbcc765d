"""Search filters: JSON → which products match, decided before ranking. Reads a products table, writes nothing.

    {"and": [...]}   {"or": [...]}   {"not": {...}}        an object with several keys means all of them
    {"brand": "Acme"}   {"brand": ["Acme", "Nord"]}         equal, or one of; upper and lower case differ
    {"category": "Shoes"}                                   any level of the product's path
    {"attributes.material": ["wool"]}   {"attributes.width_cm": {"gte": 40}}
    {"price": {"gte": 20, "lt": 79.99}}                     lt lte gt gte eq; exact decimals; a price range matches if
                                                            it meets the condition anywhere
    {"in_stock": true}   {"updated_at": {"gte": "2026-01-01T00:00:00Z"}}

A product that lacks a field never matches a condition on it. `not` turns an answer round, so it does match `not`.
"""

import difflib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.errors import FilterError
from fuserank.retrieval.columns import AttributeColumn, Column, category_column, column_of, split_attributes
from fuserank.retrieval.ordered import RangeColumn
from fuserank.retrieval.values import Values

TEXT_FIELDS = ("product_id", "parent_id", "brand", "currency")
NUMBER_FIELDS = ("price", "rating", "review_count", "updated_at")
FIELDS = (*TEXT_FIELDS, *NUMBER_FIELDS, "category", "in_stock")
ATTRIBUTE = "attributes."
MAX_DEPTH = 16
MAX_NODES = 256


class Filters:
    """Filters over one products table (records.schema.PRODUCT); columns are prepared on first use and kept."""

    def __init__(self, products: pa.Table):
        self.size = products.num_rows
        self._products = products
        self._columns: dict[str, Column] = {}
        self._attributes: dict[str, Column] | None = None
        self.elsewhere: frozenset[str] = frozenset()  # attributes that other products have: no error, no match

    def mask(self, condition: Any) -> np.ndarray:
        """bool [N]: the products that match.

        Raises:
            FilterError: malformed, too deep or too long, or an unknown field (the hint names the nearest one).
        """
        return self._node(condition, 1, itertools.count(1))

    def values(self, field: str, rows: np.ndarray) -> Values:
        """What these rows [K] hold in a field.

        Raises:
            FilterError: there is no such field.
        """
        return self._field(field).values(rows)

    @property
    def present(self) -> np.ndarray:
        """bool [N]: rows that are products; of a table that does not change, all."""
        return np.ones(self.size, bool)

    def fields(self) -> list[str]:
        """Every field a filter on this table may name."""
        return [*FIELDS, *(ATTRIBUTE + name for name in sorted({*self._attribute_columns(), *self.elsewhere}))]

    def attributes(self) -> frozenset[str]:
        """Names of the attributes the products have."""
        return frozenset(self._attribute_columns())

    def _node(self, condition: Any, depth: int, parts: Iterator[int]) -> np.ndarray:
        _count(depth, parts)
        if not isinstance(condition, dict) or not condition:
            raise FilterError(
                f"a filter must be an object with a field or and/or/not, not {_show(condition)}.",
                'Write e.g. {"price": {"lte": 80}}.',
            )
        masks = [self._key(key, value, depth, parts) for key, value in condition.items()]
        return masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)

    def _key(self, key: Any, value: Any, depth: int, parts: Iterator[int]) -> np.ndarray:
        if key == "not":
            return ~self._node(value, depth + 1, parts)
        if key in ("and", "or"):
            if not isinstance(value, list):
                raise FilterError(f"`{key}` takes a list of filters, not {_show(value)}.")
            combine: Callable = np.logical_and if key == "and" else np.logical_or
            result = np.full(self.size, key == "and")
            for part in value:
                combine(result, self._node(part, depth + 1, parts), out=result)
            return result
        _count(depth, parts)
        try:
            return self._field(key).match(value)
        except FilterError as error:
            raise FilterError(f"filter on `{key}`: {error.message}", error.hint) from None

    def _field(self, name: Any) -> Column:
        if isinstance(name, str) and name.startswith(ATTRIBUTE):
            attribute = name.removeprefix(ATTRIBUTE)
            column = self._attribute_columns().get(attribute)
            if column is not None:
                return column
            if attribute in self.elsewhere:
                return AttributeColumn(self.size, np.zeros(0, np.int64), np.zeros(0, np.int64), [])
        elif name in FIELDS:
            if name not in self._columns:
                self._columns[name] = self._prepare(name)
            return self._columns[name]
        near = difflib.get_close_matches(str(name), self.fields(), n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"Fields: {', '.join(FIELDS)}, attributes.NAME."
        raise FilterError(f"there is no field {_show(name)} to filter on.", hint)

    def _prepare(self, name: str) -> Column:
        values = self._products.column(name).combine_chunks()
        if name == "price":
            return RangeColumn(values, self._products.column("price_max").combine_chunks())
        return category_column(values) if name == "category" else column_of(values)

    def _attribute_columns(self) -> dict[str, Column]:
        if self._attributes is None:
            self._attributes = split_attributes(self._products.column("attributes").combine_chunks())
        return self._attributes


def _count(depth: int, parts: Iterator[int]) -> None:
    if depth > MAX_DEPTH:
        raise FilterError(f"the filter is nested deeper than {MAX_DEPTH} levels.")
    if next(parts) > MAX_NODES:
        raise FilterError(f"the filter has more than {MAX_NODES} parts.", "Use a list of values instead of many `or`s.")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
