"""What products are like, for affinity: their brand, category and attribute values, and in which third of their
category's prices they lie. Reads a products table, writes nothing.

A user's affinity to a product is counted from what they turned to before: the log-odds of each of its values in their
past against the whole shop (a naive Bayes user model, Pazzani & Billsus 1997, Learning and Revising User Profiles).

R rows · K candidates · T products of a past.
"""

import copy
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PRIOR = 3.0  # products of the average taste that every past is thought to begin with
TIERS = 3  # of prices: low, middle, high
FEW = 10  # priced products that a category needs for tiers of its own
HELD = 2  # products that must have a value for it to tell likings apart

Values = tuple[np.ndarray, pa.Array]  # row of each, `name=value`


class Traits:
    """Values are known from the table given at first; rows put later are told by those."""

    def __init__(self, products: pa.Table):
        rows, told = _values(products)
        encoded = told.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        held = np.bincount(codes, minlength=len(encoded.dictionary))
        kept = np.flatnonzero(held >= HELD)
        self._share = held[kept] / max(products.num_rows, 1)
        self._codes = {text: i for i, text in enumerate(encoded.dictionary.take(pa.array(kept)).to_pylist())}
        new = np.full(len(held), -1, np.int64)
        new[kept] = np.arange(len(kept))
        known = new[codes] >= 0
        order = np.lexsort((new[codes][known], rows[known]))
        self._held = new[codes][known][order]
        self._starts = np.searchsorted(rows[known][order], np.arange(products.num_rows + 1))
        self._changed: dict[int, np.ndarray] = {}
        self._prices: dict[str, np.ndarray] = {}
        category, price = _prices(products)
        for name in np.unique(category):
            mine = np.sort(price[(category == name) & ~np.isnan(price)])
            if len(mine) >= FEW:
                self._prices[name] = mine
        self._all = np.sort(price[~np.isnan(price)])
        self._tier = self._tiers(category, price)
        priced = np.maximum(np.bincount(self._tier, minlength=TIERS + 1)[:TIERS], 1)
        self._tier_share = priced / priced.sum()

    def grow(self, count: int) -> None:
        """Room for `count` further rows, of which nothing is known yet."""
        self._tier = np.concatenate([self._tier, np.full(count, TIERS)])

    def put(self, rows: Sequence[int], products: pa.Table) -> None:
        """These rows are these products from now on."""
        place, told = _values(products)
        known = [
            (int(p), self._codes[text]) for p, text in zip(place, told.to_pylist(), strict=True) if text in self._codes
        ]
        for i, row in enumerate(rows):
            self._changed[row] = np.array(sorted({code for p, code in known if p == i}), np.int64)
        self._tier[np.array(rows, np.int64)] = self._tiers(*_prices(products))

    def beside(self, products: pa.Table, first: int) -> "Traits":
        """These traits with further products from row `first` on, the number of rows; the original stays as it is."""
        found = copy.copy(self)
        found._changed = dict(self._changed)
        found.grow(products.num_rows)
        found.put(range(first, first + products.num_rows), products)
        return found

    def affinity(self, rows: np.ndarray, past: Sequence[int]) -> np.ndarray:
        """float32 [K, 2] of candidates to a past [T]: log-odds of the values they have, summed; of their price tier.

        Zeros for an empty past, and where nothing is known.
        """
        found = np.zeros((len(rows), 2), np.float32)
        if not len(past) or not len(rows):
            return found
        turned = np.asarray(past, np.int64)
        codes, place = self._of(rows)
        odds = _odds(self._of(turned)[0], len(turned), self._share)
        found[:, 0] = np.bincount(place, odds[codes], len(rows))
        mine = self._tier[turned]
        mine = mine[mine < TIERS]  # others have no price
        found[:, 1] = np.append(_odds(mine, len(mine), self._tier_share), 0)[self._tier[rows]]
        return found

    def common(self, rows: np.ndarray, row: int) -> np.ndarray:
        """float32 [K]: the share of `row`'s values that each of `rows` has; zeros where it has none."""
        codes, place = self._of(rows)
        own = self._of(np.array([row]))[0]
        return (np.bincount(place[np.isin(codes, own)], minlength=len(rows)) / max(len(own), 1)).astype(np.float32)

    def tiers(self, rows: np.ndarray) -> np.ndarray:
        """int64 [K]: the third of its category's prices that each lies in, TIERS where it has no price."""
        return self._tier[rows]

    def _of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes of rows, and the place in `rows` that each belongs to."""
        parts = [self._changed[row] if row in self._changed else self._base(row) for row in rows.tolist()]
        lengths = [len(part) for part in parts]
        return np.concatenate([np.zeros(0, np.int64), *parts]), np.repeat(np.arange(len(rows)), lengths)

    def _base(self, row: int) -> np.ndarray:
        inside = row < len(self._starts) - 1
        return self._held[self._starts[row] : self._starts[row + 1]] if inside else self._held[:0]

    def _tiers(self, category: np.ndarray, price: np.ndarray) -> np.ndarray:
        """int64 in 0 … TIERS − 1 by how many of the category's prices are lower, ties in the middle; TIERS without a
        price."""
        tier = np.full(len(price), TIERS, np.int64)
        for name in np.unique(category):
            mine = np.flatnonzero((category == name) & ~np.isnan(price))
            others = self._prices.get(name, self._all)
            if len(mine) and len(others):
                low, high = (np.searchsorted(others, price[mine], side=side) for side in ("left", "right"))
                tier[mine] = np.minimum(TIERS * (low + high) // (2 * len(others)), TIERS - 1)
        return tier


def _odds(seen: np.ndarray, count: int, share: np.ndarray) -> np.ndarray:
    """Log of how much likelier each value is in a past of `count` products, PRIOR average ones added, than in the shop.

    Args:
        seen: codes of the values in the past. share: of the shop's products that have each value.
    """
    return np.log((np.bincount(seen, minlength=len(share)) + PRIOR * share) / ((count + PRIOR) * share))


def _values(products: pa.Table) -> Values:
    """Brand, each level of the category and every attribute, in lower case; each once a product."""
    brand = products["brand"].combine_chunks()
    rows = [np.flatnonzero(brand.is_valid().to_numpy(zero_copy_only=False))]
    told = [_told("brand", brand.drop_null())]
    for name, values in (("category", products["category"]), ("", products["attributes"])):
        column = values.combine_chunks()
        lengths = pc.call_function("list_value_length", [_listed(column)]).fill_null(0)
        places = np.repeat(np.arange(len(column)), lengths.to_numpy(zero_copy_only=False))
        flat = _listed(column).flatten()
        texts = flat.field(1) if not name else flat
        valid = texts.is_valid()
        rows.append(places[valid.to_numpy(zero_copy_only=False)])
        told.append(_told(name or flat.field(0).filter(valid), texts.filter(valid)))
    every = pa.concat_arrays([part.cast(pa.large_string()) for part in told])
    place = np.concatenate(rows)
    codes = every.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    _, once = np.unique(place * (int(codes.max(initial=0)) + 1) + codes, return_index=True)
    return place[once], every.take(pa.array(once))


def _listed(column: pa.Array) -> pa.Array:
    """A map as the list of pairs it is."""
    if not isinstance(column, pa.MapArray):
        return column
    pair = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
    return column.cast(pa.list_(pair))


def _told(name: str | pa.Array, values: pa.Array) -> pa.Array:
    plain = pc.call_function("utf8_lower", [pc.call_function("utf8_trim_whitespace", [values])])
    return pc.call_function("binary_join_element_wise", [name, plain, "="])


def _prices(products: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What a product is compared with – the last level of its category, and its currency – and its price."""
    category = [levels[-1] if levels else "" for levels in products["category"].to_pylist()]
    currency = products["currency"].to_pylist()
    price = products["price"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.array([f"{c}|{levels}" for c, levels in zip(currency, category, strict=True)], object).astype(str), price
