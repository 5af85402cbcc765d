"""How much words count beside vectors (retrieval/hybrid.py, `linear`): one weight, chosen on validation queries and
kept only if cross-validation over queries shows that it helps."""

import numpy as np
import torch

from fuserank.models.candidates import feature_names
from fuserank.training.rerank import Lists, cross_folds, lifts, ndcg, proven

STEPS = tuple(0.1 * 1.4**n for n in range(17))  # in spreads of the fused score; 0 is tried too
SCORE, SHARE = (feature_names(()).index(name) for name in ("retrieved", "lexical_share"))


def fit_hybrid(lists: Lists, seed: int, folds: int = 5) -> tuple[float, dict[str, float]]:
    """The weight of a candidate's word share, 0 unless its lift over the fused order is proven.

    Args:
        lists: of judged queries, retrieved without words in the score.

    Returns:
        The weight, and `hybrid_weight`, `vectors_ndcg@10`, `hybrid_ndcg@10`, `hybrid_lift_low`, `hybrid_lift_high`,
        cross-validated; only the first where there are too few queries to tell.
    """
    if len(np.unique(lists.owner)) < 2 * folds:
        return 0.0, {"hybrid_weight": 0.0}
    score, share = lists.features[..., SCORE], lists.features[..., SHARE]
    spread = float(torch.stack([row[known].std() for row, known in zip(score, lists.mask, strict=True)]).nanmean())
    weights = [0.0, *(step * spread for step in STEPS)]
    values = np.stack([ndcg(score + weight * share, lists) for weight in weights])  # [W, Q]
    sides = cross_folds(lists.owner, folds, seed)
    found = np.full(len(sides), np.nan)
    for held in range(folds):
        found[sides == held] = values[_best(values[:, sides != held])][sides == held]
    (lift,) = lifts([found], [values[0]], [lists], seed)
    weight = weights[_best(values)] if proven([lift]) else 0.0
    return weight, {
        "hybrid_weight": weight,
        "vectors_ndcg@10": float(np.nanmean(values[0])),
        "hybrid_ndcg@10": float(np.nanmean(found)),
        "hybrid_lift_low": lift.low,
        "hybrid_lift_high": lift.high,
    }


def _best(values: np.ndarray) -> int:
    """The first weight with the highest mean."""
    return int(np.nanmean(values, axis=1).argmax())
