"""Which relevant products a system finds: by popularity, modalities, category, price. Reads PRODUCT rows and arrays.

Q queries · N products · M modalities · R ranks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from fuserank.evaluation.metrics import grades_of, recall_at_k

CATEGORIES = 8
"""The largest ones stand alone, the others together."""
BANDS = 4
OTHER, NONE = "other", "none"

Groups = dict[str, dict[str, np.ndarray]]
"""What products are grouped by → group → bool [N]."""


def product_groups(
    products: pa.Table, mask: np.ndarray, modalities: Sequence[str], counts: np.ndarray | None, known: np.ndarray | None
) -> Groups:
    """Groups of the catalogue; where all products are in one group, it says nothing and is left out.

    Args:
        products: PRODUCT [N]; mask: bool [N, M], True = present.
        counts: [N] how many users training saw turn to each product; None without events.
        known: bool [N], the products that a judgment or an event of training is about; None if products are split, so
            that all are cold.
    """
    names: dict[str, list[str]] = {"modalities": _subsets(mask, modalities)}
    if counts is not None and counts.any():
        names["popularity"] = popularity(counts)
    if known is not None:
        names["training"] = ["seen in training" if seen else "cold" for seen in known.tolist()]
    names["category"] = _largest(categories(products))
    names["price"] = price_bands(products)
    found = {}
    for what, of in names.items():
        groups = {name: np.array([other == name for other in of]) for name in _order(what, of)}
        if len(groups) > 1:
            found[what] = groups
    return found


def popularity(counts: np.ndarray) -> list[str]:
    """`head`: the most popular products that together hold half of the counts; `tail`: the others; `no events`."""
    order = np.argsort(-counts, kind="stable")
    before = np.concatenate([[0], counts[order].cumsum()[:-1]])
    head = np.zeros(len(counts), dtype=bool)
    head[order] = before < counts.sum() / 2
    return ["no events" if not c else "head" if h else "tail" for c, h in zip(counts.tolist(), head, strict=True)]


def categories(products: pa.Table) -> list[str]:
    """The first level of the category at which products differ, `none` where a product has no such level."""
    paths = [path or [] for path in products["category"].to_pylist()]
    for level in range(max(map(len, paths), default=0)):
        names = [path[level] if len(path) > level else NONE for path in paths]
        if len(set(names)) > 1:
            return names
    return [NONE] * len(paths)


def category_shares(products: pa.Table) -> np.ndarray:
    """Each product's category as a share of 1: float64 [N, C], a row of zeros where it has none."""
    names = categories(products)
    different = sorted(set(names) - {NONE})
    return np.array([[float(name == one) for one in different] for name in names]).reshape(len(names), len(different))


def price_bands(products: pa.Table) -> list[str]:
    """Quarters of the catalogue by price, of the commonest currency."""
    amounts, currency = products["price"].to_pylist(), products["currency"].to_pylist()
    prices = np.array([np.nan if p is None else float(p) for p in amounts], dtype=np.float64)
    used = Counter(one for one, price in zip(currency, amounts, strict=True) if price is not None)
    if not used:
        return [NONE] * len(prices)
    common = used.most_common(1)[0][0]
    counted = ~np.isnan(prices) & np.array([one == common for one in currency], dtype=bool)
    edges = np.unique(np.quantile(prices[counted], np.linspace(0, 1, BANDS + 1)))
    unit = f" {common}" if common else ""
    inner = edges[1:-1]
    names = [f"{low:.2f} – {high:.2f}{unit}" for low, high in pairwise(edges)]
    names = names or [f"{edges[0]:.2f}{unit}"]  # all cost the same
    place = np.searchsorted(inner, prices, side="left")
    return [names[p] if c else "no price" for p, c in zip(place.tolist(), counted.tolist(), strict=True)]


def recall_of(
    order: np.ndarray, grades: np.ndarray, groups: Mapping[str, np.ndarray], k: int, relevant: float = 1.0
) -> dict[str, np.ndarray]:
    """Of the relevant products of a group, the share among the first k of the full ranking.

    Args:
        order: [Q, R] rows (−1 unfilled); grades: [Q, N]; groups: name → bool [N].

    Returns:
        Group → float64 [Q], NaN where a query has no such relevant product; groups without any are left out.
    """
    found = {}
    for name, members in groups.items():
        kept = np.where(members, grades, 0.0)
        if (kept >= relevant).any():
            found[name] = recall_at_k(grades_of(order, kept), kept, k, relevant)
    return found


def _largest(names: list[str]) -> list[str]:
    large = {name for name, _ in Counter(sorted(names)).most_common(CATEGORIES)}
    return [name if name in large else OTHER for name in names]


def _subsets(mask: np.ndarray, modalities: Sequence[str]) -> list[str]:
    return [" + ".join(m for m, has in zip(modalities, row, strict=True) if has) or "nothing" for row in mask.tolist()]


def _order(what: str, names: list[str]) -> list[str]:
    """Groups in the order a reader expects: bands by price, the rest by size."""
    if what == "price":
        return sorted(
            set(names), key=lambda name: (not name[0].isdigit(), float(name.split()[0]) if name[0].isdigit() else 0)
        )
    if what == "popularity":
        return [name for name in ("head", "tail", "no events") if name in names]
    return [name for name, _ in sorted(Counter(names).items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))]
