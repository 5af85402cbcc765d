"""The records of a catalogue that changes, for filters: an immutable base table and a small one of changed products.
Reads and writes nothing. For one compute thread."""

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.records.schema import PRODUCT
from fuserank.retrieval.filters import Filters
from fuserank.retrieval.values import Values, merged

KEPT_MASKS = 64  # of filters over the base, one byte a product each


class DeltaRecords:
    """`mask`, `values` and `fields` are Filters'."""

    def __init__(self, products: pa.Table):
        self.size = products.num_rows
        self._base = Filters(products)
        self._products = products
        self._masks: OrderedDict[str, np.ndarray] = OrderedDict()
        self._place = np.full(self.size, -1, np.int64)  # row → place in the delta, -1: the base's record counts
        self._gone = np.zeros(self.size, bool)
        self._rows: list[int] = []  # place → row
        self._delta = PRODUCT.empty_table()
        self._changed = Filters(self._delta)
        self._since: set[int] | None = None

    @property
    def delta(self) -> int:
        """Records beside the base, replaced ones included."""
        return len(self._rows)

    @property
    def present(self) -> np.ndarray:
        """bool [R]: rows that are products now."""
        return ~self._gone

    def grow(self, count: int) -> None:
        """Room for `count` further rows; they are no products yet."""
        self._place = np.concatenate([self._place, np.full(count, -1, np.int64)])
        self._gone = np.concatenate([self._gone, np.ones(count, bool)])
        self.size += count

    def put(self, records: dict[int, dict[str, Any]]) -> pa.Table:
        """Rows' records (PRODUCT rows) from now on; returns them as a table."""
        for row in records:
            self._place[row] = len(self._rows)
            self._rows.append(row)
            self._gone[row] = False
        added = pa.Table.from_pylist(list(records.values()), PRODUCT)
        self._tidy(pa.concat_tables([self._delta, added]))
        if self._since is not None:
            self._since |= records.keys()
        return added

    def drop(self, row: int) -> None:
        """The row is no product until `put`."""
        self._gone[row] = True
        self._place[row] = -1
        if self._since is not None:
            self._since.add(row)

    def mask(self, condition: Any) -> np.ndarray:
        """bool [R]: the products that match, as they are now. Raises FilterError."""
        self._tell_attributes()
        found = np.zeros(self.size, bool)
        base = self._base_mask(condition)
        found[: len(base)] = base
        if self._rows:
            changed = np.flatnonzero(self._place >= 0)
            found[changed] = self._changed.mask(condition)[self._place[changed]]
        return found & ~self._gone

    def values(self, field: str, rows: np.ndarray) -> Values:
        """What these products [K] hold in a field, as they are now. Raises FilterError."""
        self._tell_attributes()
        place = self._place[rows]
        old, new = np.flatnonzero(place < 0), np.flatnonzero(place >= 0)
        parts = [(old, self._base.values(field, rows[old]))]
        if len(new):
            parts.append((new, self._changed.values(field, place[new])))
        return merged(len(rows), parts)

    def fields(self) -> list[str]:
        """Every field a filter may name."""
        self._tell_attributes()
        return self._base.fields()

    def table(self) -> Callable[[], pa.Table]:
        """What makes the table of all R rows as they are now, for any thread; those of no products hold anything."""
        base, delta = self._products, self._delta
        place = np.where(self._place >= 0, self._place + base.num_rows, np.arange(self.size))
        place[(self._place < 0) & (np.arange(self.size) >= base.num_rows)] = 0
        return lambda: pa.concat_tables([base, delta]).take(pa.array(place))

    def snapshot(self) -> Callable[[], pa.Table]:
        """`table`, and from now on it is noted what changes; `install` takes its result."""
        self._since = set()
        return self.table()

    def install(self, made: pa.Table) -> None:
        """Answer from the new table; what has changed since the snapshot stays beside it."""
        since, self._since = self._since or set(), None
        self._base, self._products = Filters(made), made
        self._masks.clear()
        changed = np.flatnonzero(self._place >= 0)
        self._place[changed[~np.isin(changed, np.fromiter(since, np.int64, len(since)))]] = -1
        self._tidy(self._delta, always=True)

    def _tell_attributes(self) -> None:
        self._base.elsewhere, self._changed.elsewhere = self._changed.attributes(), self._base.attributes()

    def _base_mask(self, condition: Any) -> np.ndarray:
        try:
            key = json.dumps(condition, sort_keys=True)
        except (RecursionError, TypeError, ValueError):  # the filter itself says what is wrong with it
            return self._base.mask(condition)
        if key not in self._masks:
            self._masks[key] = self._base.mask(condition)
            if len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        self._masks.move_to_end(key)
        return self._masks[key]

    def _tidy(self, table: pa.Table, always: bool = False) -> None:
        """Take replaced records out once they are the larger part."""
        rows = np.array(self._rows, np.int64)
        current = np.flatnonzero(self._place[rows] == np.arange(len(rows))) if len(rows) else rows
        if always or 2 * len(current) < len(rows):
            table = table.take(pa.array(current))
            self._rows = rows[current].tolist()
            self._place[self._rows] = np.arange(len(current))
        self._delta = table.combine_chunks()
        self._changed = Filters(self._delta)
