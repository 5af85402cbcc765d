"""Which queries or products a figure is about: query groups, kinds of query, products that lack a modality.

Reads the QUERY table and arrays, writes nothing. Q queries · N products · R ranks · M modalities.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from fuserank.evaluation.groups import recall_of

ALL = "all queries"
WORDED = ("text", "attributes")
"""What a product loses whose text is hidden: attributes say the same words over (brand, category, colour)."""


def query_kind(text: str | None, image: str | None, audio: str | None) -> str:
    """What a query asks with, e.g. "text", "text + image"."""
    parts = [name for name, part in (("text", text), ("image", image), ("audio", audio)) if part]
    return " + ".join(parts) or "empty"


def query_slices(queries: pa.Table) -> dict[str, np.ndarray]:
    """Slice name → bool [Q]: all queries, each group, each kind of query; slices equal to all of them are left out."""
    rows = queries.select(["text", "image", "audio", "group"]).to_pylist()
    names: dict[str, list[str | None]] = {
        "group": [row["group"] for row in rows],
        "asked by": [query_kind(row["text"], row["image"], row["audio"]) for row in rows],
    }
    found = {ALL: np.ones(len(rows), dtype=bool)}
    for what, values in names.items():
        different = sorted({value for value in values if value})
        for value in different:
            chosen = np.array([other == value for other in values])
            if not chosen.all():
                found[f"{what}: {value}"] = chosen
    return found


def recall_without(
    order: np.ndarray, grades: np.ndarray, mask: np.ndarray, modalities: Sequence[str], k: int, relevant: float = 1.0
) -> dict[str, np.ndarray]:
    """Of the relevant products that lack a modality, the share among the first k of the full ranking.

    Args:
        order: [Q, R] rows (−1 unfilled); grades: [Q, N]; mask: bool [N, M], True = present.

    Returns:
        "complete" and "without <modality>" → float64 [Q], NaN where a query has no such relevant product.
    """
    groups = {"complete": np.asarray(mask.all(axis=1))} | {
        f"without {m}": ~mask[:, i] for i, m in enumerate(modalities)
    }
    return recall_of(order, grades, groups, k, relevant)


def without_words(mask: np.ndarray, hidden: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """The products' mask bool [N, M] with everything WORDED taken from those that `hidden` [N] marks."""
    worded = np.isin(np.array(modalities), WORDED)
    return mask & ~(hidden[:, None] & worded)


def hidden_half(product_ids: Sequence[str], share: float, seed: int) -> np.ndarray:
    """A seeded share of the products, whatever their order: bool [N]."""
    ranks = np.random.default_rng(seed).permutation(len(product_ids))
    chosen = np.zeros(len(product_ids), dtype=bool)
    chosen[np.argsort(np.array(product_ids, dtype=object), kind="stable")] = ranks < round(share * len(product_ids))
    return chosen
