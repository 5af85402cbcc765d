"""A product's brand, category and attributes → ids of the `name=value` pairs that are known. Reads and writes nothing.

Known are the pairs that at least two training products have. Where nearly all values of an attribute are numbers, and
more than `bins` different ones, each stands for the quantile bin it falls in (`weight=≤1.5`); of fewer numbers, such as
sizes, each is a value of its own. Words that hardly repeat (names, codes, sentences) are left out by that.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fuserank.features.price import quantile_edges

COLUMNS = ("brand", "category", "attributes")
"""The product columns that are read. Labels are not among them."""
SEEN = 2  # products that must have a pair
NUMERIC = 0.95  # share of an attribute's values that must be numbers for the others to count as slips


@dataclass(frozen=True)
class AttributeVocabulary:
    """The known pairs; id 0 stands for no pair, so pair i has id i + 1.

    Args:
        width: ids of one product; of more, the rarer pairs stay, which tell more.
        values: known `name=value` pairs, most frequent first. edges: of each binned attribute, ascending.
    """

    width: int = 32
    values: tuple[str, ...] = ()
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, products: Iterable[Mapping[str, Any]], width: int = 32, size: int = 2000, bins: int = 8
    ) -> "AttributeVocabulary":
        """Learn from PRODUCT rows of the training split; the same rows give the same vocabulary, in any order.

        Args:
            size: most pairs kept, the most frequent ones. bins: of a numeric attribute.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for product in products:
            counts.update(set(pairs(product)))
        edges = _edges(counts, bins)
        told: Counter[str] = Counter()
        for (name, value), count in counts.items():
            told[_told(name, value, edges)] += count
        often = sorted((pair for pair in told if told[pair] >= SEEN), key=lambda pair: (-told[pair], pair))
        return cls(width, tuple(often[:size]), edges)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "AttributeVocabulary":
        """From what JSON made of one."""
        edges = {name: tuple(found) for name, found in values["edges"].items()}
        return cls(values["width"], tuple(values["values"]), edges)

    def told(self, product: Mapping[str, Any]) -> list[str]:
        """A PRODUCT row's known pairs, each once, most frequent first."""
        found = {_told(name, value, self.edges) for name, value in pairs(product)}
        return sorted(found & self._ids.keys(), key=self._ids.__getitem__)

    def ids(self, product: Mapping[str, Any]) -> np.ndarray | None:
        """int32 [width] ids of a PRODUCT row's pairs, ascending, padded with 0; None where none is known."""
        known = [self._ids[pair] for pair in self.told(product)][-self.width :]
        return np.pad(np.array(known, np.int32), (0, self.width - len(known))) if known else None

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {pair: place for place, pair in enumerate(self.values, 1)}


def pairs(product: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of everything categorical a PRODUCT row tells, in lower case; each level of the category is one.

    Args:
        product: its `attributes` as a dict or as Arrow's list of pairs.
    """
    held = product.get("attributes") or ()
    given = [("brand", product.get("brand")), *(("category", level) for level in product.get("category") or ())]
    for name, value in [*given, *(held.items() if isinstance(held, Mapping) else held)]:
        if value and (plain := " ".join(value.lower().split())):
            yield " ".join(name.lower().split()), plain


def _number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _edges(counts: Counter[tuple[str, str]], bins: int) -> dict[str, tuple[float, ...]]:
    """Quantile edges of the attributes that are numbers."""
    every: Counter[str] = Counter()
    numbers: defaultdict[str, Counter[float]] = defaultdict(Counter)
    for (name, value), count in counts.items():
        every[name] += count
        if (number := _number(value)) is not None:
            numbers[name][number] += count
    found = {}
    for name, held in sorted(numbers.items()):
        if len(held) > bins and held.total() >= NUMERIC * every[name]:
            found[name] = tuple(dict.fromkeys(map(_short, quantile_edges(sorted(held.elements()), bins))))
    return found


def _told(name: str, value: str, edges: Mapping[str, tuple[float, ...]]) -> str:
    if name not in edges or (number := _number(value)) is None:
        return f"{name}={value}"
    place = int(np.searchsorted(edges[name], number))
    return f"{name}=≤{edges[name][place]:g}" if place < len(edges[name]) else f"{name}=>{edges[name][-1]:g}"


def _short(edge: float) -> float:
    """Six digits, so that an edge reads well and is told apart from its neighbours by them."""
    return float(f"{edge:g}")
