"""What answers are like beyond their accuracy: coverage, novelty, diversity, calibration. Arrays in, numbers out.

Q queries or users · N products · R ranks · C categories. `order` int [Q, R] holds rows best first, −1 where not filled;
of each list its first k are judged. What has no defined value (an empty list, a single product's diversity) is NaN, as
in metrics.py.
"""

import numpy as np

from fuserank.errors import EvaluationError

SMOOTHING = 0.01
"""Share of the wanted distribution mixed into a list's own, so that its divergence is finite (Steck, 2018)."""


def coverage_at_k(order: np.ndarray, products: int, k: int = 10) -> float:
    """Share of the catalogue that stands in any list. It belongs to the set of lists: no query has one of its own.

    Source: Ge, Delgado-Battenfeld and Jannach, Beyond Accuracy, 2010 (catalogue coverage).
    """
    top = _top(order, k, products)
    return len(np.unique(top[top >= 0])) / products if products else float("nan")


def novelty_at_k(order: np.ndarray, counts: np.ndarray, k: int = 10) -> np.ndarray:
    """Mean self-information −log2 p of a list's products, in bits. → float64 [Q].

    Args:
        counts: [N] how often training turned to each product; p = (count + 1) / (Σ count + N), so that a product
            nobody has touched is finitely novel.

    Source: Vargas and Castells, Rank and Relevance in Novelty and Diversity Metrics, 2011; Zhou et al., 2010.
    """
    counts = _finite(counts, "counts of products")
    if (counts < 0).any():
        raise EvaluationError("counts of products must be ≥ 0.")
    top = _top(order, k, len(counts))
    bits = -np.log2((counts + 1) / (counts.sum() + len(counts)))
    return _mean(np.where(top >= 0, _take(bits, top), 0.0), (top >= 0).sum(axis=1))


def diversity_at_k(order: np.ndarray, vectors: np.ndarray, k: int = 10) -> np.ndarray:
    """Mean distance 1 − cosine over all pairs of a list: vectors [N, D] → float64 [Q]; NaN below two products.

    A product whose vector is zero is at distance 1 from every other.

    Source: Smyth and McClave, Similarity vs. Diversity, 2001; Ziegler et al., 2005 (intra-list similarity).
    """
    vectors = _finite(vectors, "vectors")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    top = _top(order, k, len(vectors))
    filled = (top >= 0).sum(axis=1)
    own = np.where(top >= 0, _take((length[:, 0] > 0).astype(np.float64), top), 0.0).sum(axis=1)
    pairs = filled * (filled - 1) / 2
    alike = ((_sums(unit, top) ** 2).sum(axis=1) - own) / 2  # Σ over pairs of u·v, from |Σu|² = Σ|u|² + 2 Σ u·v
    return _mean(pairs - alike, pairs)


def calibration_at_k(order: np.ndarray, wanted: np.ndarray, categories: np.ndarray, k: int = 10) -> np.ndarray:
    """How far a list's categories are from those wanted: Kullback-Leibler divergence in nats, 0 is best. → float64 [Q].

    Args:
        wanted: [Q, C] ≥ 0, of any sum: what a user's past or a query's relevant products are made of.
        categories: [N, C] ≥ 0: each product's share in every category; a row of zeros has none and is passed over.

    Returns:
        NaN where nothing is wanted, or no listed product has a category.

    Source: Steck, Calibrated Recommendations, 2018 (p of the past, q of the list, smoothed by α = 0.01).
    """
    wanted, categories = _finite(wanted, "wanted categories"), _finite(categories, "categories")
    if (wanted < 0).any() or (categories < 0).any():
        raise EvaluationError("shares of categories must be ≥ 0.")
    top = _top(order, k, len(categories))
    found = _sums(categories, top)
    totals = wanted.sum(axis=1), found.sum(axis=1)
    defined = (totals[0] > 0) & (totals[1] > 0)
    out = np.full(len(wanted), np.nan)
    p = wanted[defined] / totals[0][defined, None]
    q = (1 - SMOOTHING) * found[defined] / totals[1][defined, None] + SMOOTHING * p
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    out[defined] = np.maximum((p * np.log(ratio)).sum(axis=1), 0.0)
    return out


def _top(order: np.ndarray, k: int, products: int) -> np.ndarray:
    """The first k ranks, checked: int64 [Q, ≤ k]."""
    order = np.asarray(order, dtype=np.int64)
    if order.ndim != 2:
        raise EvaluationError(f"rankings must be [queries, ranks], got shape {order.shape}.")
    top = order[:, :k]
    if top.size and top.max() >= products:
        raise EvaluationError(f"a ranking holds row {int(top.max())} of {products} products.")
    ordered = np.sort(top, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise EvaluationError(
            f"query row {int(twice.argmax())} ranks the same product twice.", "Rank each product once."
        )
    return top


def _sums(values: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Sum of the listed products' rows of `values` [N, D], rank by rank so that no [Q, R, D] is made. → [Q, D]."""
    found = np.zeros((len(top), values.shape[1]))
    for rank in range(top.shape[1]):
        found += np.where(top[:, rank, None] >= 0, _take(values, top[:, rank]), 0.0)
    return found


def _take(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values of rows, any value for row −1. Works without products too, where every row is −1."""
    return values[np.maximum(rows, 0)] if len(values) else np.zeros((*rows.shape, *values.shape[1:]))


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    sums = sums.sum(axis=1) if sums.ndim == 2 else sums
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise EvaluationError(f"{what} hold NaN or infinities.", "A model that returns NaN has diverged: train again.")
    return values
