"""Compares systems on the same queries: means with intervals, paired differences, slices. Reads arrays, writes nothing.

A system is a ranking of the catalogue for each query: order int64 [Q, R], rows best first, −1 where not filled.
Q queries · N products · M modalities · D width of a modality vector.
"""

from collections.abc import Mapping

import numpy as np

from fuserank.evaluation.intervals import interval, paired_difference, rounded, seed_of
from fuserank.evaluation.metrics import rank_rows, ranking_metrics
from fuserank.evaluation.significance import holm, paired_test

Values = dict[str, dict[str, np.ndarray]]
"""System → metric → one value per query, float64 [Q]."""


def modality_orders(
    heads: np.ndarray, vectors: np.ndarray, mask: np.ndarray, modalities: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Rankings by one modality alone; products that lack it are not retrieved.

    Args:
        heads: [Q, M, D] the query's vector for each modality; vectors: [N, M, D]; mask: bool [N, M].
    """
    found = {}
    for column, modality in enumerate(modalities):
        scores = heads[:, column].astype(np.float32) @ vectors[:, column].astype(np.float32).T
        found[modality] = rank_rows(np.where(mask[:, column], scores, -np.inf))
    return found


def late_order(heads: np.ndarray, vectors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Ranking by late concatenation: what a product has of its unit vectors side by side, each with the same weight, so
    that the score is the sum of its modalities' own scores. Shapes as in `modality_orders`.
    """
    scores = np.zeros((len(heads), len(vectors)), np.float32)
    for column in range(mask.shape[1]):
        alone = heads[:, column].astype(np.float32) @ vectors[:, column].astype(np.float32).T
        scores += np.where(mask[:, column], alone, 0)
    return rank_rows(scores)


def measure(
    orders: Mapping[str, np.ndarray], grades: np.ndarray, k: int = 10, recall_k: int = 100, relevant: float = 1.0
) -> Values:
    """Every metric of every system: orders [Q, R], grades [Q, N]."""
    return {name: ranking_metrics(order, grades, k, recall_k, relevant) for name, order in orders.items()}


def best_of(values: Values, names: tuple[str, ...], metric: str) -> str | None:
    """The named system with the highest mean (chosen on these very queries, which favours it, not us)."""
    present = [name for name in names if name in values and not np.isnan(values[name][metric]).all()]
    return max(present, key=lambda name: float(np.nanmean(values[name][metric])), default=None)


def compare(
    values: Values,
    slices: Mapping[str, np.ndarray],
    pairs: list[tuple[str, str]],
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, dict]:
    """Slice → {"systems": {system: {metric: interval}}, "differences": [{"a", "b", metric: interval of a − b}]}.

    A difference also has "excludes_zero", "p" (significance.paired_test) and "p_holm", corrected over its metrics.

    Args:
        slices: name → bool [Q].
        pairs: systems (a, b) whose paired difference is wanted.
    """
    found = {}
    for name, chosen in slices.items():
        systems = {
            system: {
                metric: interval(per_query[chosen], samples, seed=seed_of(seed, name, metric)).as_dict()
                for metric, per_query in metrics.items()
            }
            for system, metrics in values.items()
        }
        differences = []
        for a, b in pairs:
            row: dict = {"a": a, "b": b}
            for metric in values[a]:
                left, right = values[a][metric][chosen], values[b][metric][chosen]
                difference = paired_difference(left, right, samples, seed=seed_of(seed, name, metric))
                row[metric] = difference.as_dict() | {
                    "excludes_zero": difference.excludes_zero,
                    "p": paired_test(left, right, seed=seed_of(seed, name, metric)),
                }
            for metric, p in zip(values[a], holm([row[metric]["p"] for metric in values[a]]), strict=True):
                row[metric] |= {"p": rounded(row[metric]["p"]), "p_holm": rounded(p)}
            differences.append(row)
        found[name] = {"systems": systems, "differences": differences}
    return found
