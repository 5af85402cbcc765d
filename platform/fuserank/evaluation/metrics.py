"""Ranking metrics, one value per query: nDCG, recall, reciprocal rank, hit rate, average precision.

Reads arrays, writes nothing. Legend: Q queries, N products, R ranks. Conventions, the same for every metric:

- `ranked` [Q, R] holds the grades in rank order, best first; a rank that was not filled has grade 0.
- `judged` [Q, J] holds every grade known for the query (0 where unjudged), whatever the system returned: the ideal
  ranking and the number of relevant products come from it, never from what was retrieved.
- A query without a relevant product has no defined value: it gets NaN, is left out of means and is counted.
- Equal scores rank by row order, so that a result never depends on a sort's mood. A score of −inf means "not
  retrieved": such a product is at no rank. NaN scores are refused.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fuserank.errors import EvaluationError


def rank_rows(scores: np.ndarray) -> np.ndarray:
    """Rows best first, ties by row order, −1 where the score is −inf. [Q, N] → int64 [Q, N].

    Raises:
        EvaluationError: scores are not [Q, N] or hold NaN.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise EvaluationError(f"scores must be [queries, products], got shape {scores.shape}.")
    bad = np.isnan(scores).any(axis=1)
    if bad.any():
        raise EvaluationError(
            f"{int(bad.sum())} of {len(scores)} queries have NaN scores (first: row {int(bad.argmax())}).",
            "A model that returns NaN has diverged: lower train.learning_rate or train.clip and train again.",
        )
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    return np.where(np.take_along_axis(scores, order, axis=1) == -np.inf, -1, order)


def grades_of(order: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """Grades in rank order: order int [Q, R] (−1 = unfilled), grades [Q, N] → float64 [Q, R].

    Raises:
        EvaluationError: a row is ranked twice for a query, or grades are negative or NaN.
    """
    order, grades = np.asarray(order), check_grades(grades)
    ordered = np.sort(order, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise EvaluationError(
            f"query row {int(twice.argmax())} ranks the same product twice.", "Rank each product once."
        )
    return np.where(order >= 0, np.take_along_axis(grades, np.maximum(order, 0), axis=1), 0.0)


def check_grades(grades: np.ndarray) -> np.ndarray:
    """Grades as float64 [Q, N]; refuses negative and NaN ones."""
    grades = np.asarray(grades, dtype=np.float64)
    if grades.ndim != 2 or not (grades >= 0).all():
        raise EvaluationError("grades must be [queries, products] and ≥ 0 without NaN.", "Check judgments.grade.")
    return grades


def _dcg(grades: np.ndarray, k: int) -> np.ndarray:
    top = grades[:, :k]
    return ((np.exp2(top) - 1.0) / np.log2(np.arange(2, top.shape[1] + 2))).sum(axis=1)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


def ndcg_at_k(ranked: np.ndarray, judged: np.ndarray, k: int = 10) -> np.ndarray:
    """Normalised discounted cumulative gain, gain 2^grade − 1, discount 1/log2(rank + 1). → float64 [Q].

    Source: Burges et al., Learning to Rank using Gradient Descent, 2005 (gain); Järvelin and Kekäläinen, 2002.
    """
    judged = np.asarray(judged, dtype=np.float64)
    best = np.partition(-judged, min(k, judged.shape[1]) - 1, axis=1)[:, :k] if judged.shape[1] else judged
    return _divide(_dcg(np.asarray(ranked, dtype=np.float64), k), _dcg(-np.sort(best, axis=1), k))


def recall_at_k(ranked: np.ndarray, judged: np.ndarray, k: int = 100, relevant: float = 1.0) -> np.ndarray:
    """Share of all relevant products (grade ≥ `relevant`) among the first k. → float64 [Q].

    With more than k relevant products it cannot reach 1: the share is of all of them.
    """
    return _divide((ranked[:, :k] >= relevant).sum(axis=1), (judged >= relevant).sum(axis=1))


def hit_at_k(ranked: np.ndarray, judged: np.ndarray, k: int = 10, relevant: float = 1.0) -> np.ndarray:
    """1 if any of the first k is relevant, else 0. → float64 [Q]."""
    hit = (ranked[:, :k] >= relevant).any(axis=1).astype(np.float64)
    return np.where((judged >= relevant).any(axis=1), hit, np.nan)


def reciprocal_rank(ranked: np.ndarray, judged: np.ndarray, relevant: float = 1.0) -> np.ndarray:
    """1 / rank of the first relevant product, 0 if none was retrieved; its mean is MRR. → float64 [Q]."""
    if ranked.shape[1] == 0:
        return np.where((judged >= relevant).any(axis=1), 0.0, np.nan)
    good = ranked >= relevant
    value = np.where(good.any(axis=1), 1.0 / (good.argmax(axis=1) + 1.0), 0.0)
    return np.where((judged >= relevant).any(axis=1), value, np.nan)


def average_precision(ranked: np.ndarray, judged: np.ndarray, relevant: float = 1.0) -> np.ndarray:
    """Mean over all relevant products of the precision at their rank (0 if not retrieved); its mean is MAP. → [Q]."""
    good = ranked >= relevant
    precision = good.cumsum(axis=1) / np.arange(1, good.shape[1] + 1)
    return _divide((precision * good).sum(axis=1), (judged >= relevant).sum(axis=1))


def ranking_metrics(
    order: np.ndarray, grades: np.ndarray, k: int = 10, recall_k: int = 100, relevant: float = 1.0
) -> dict[str, np.ndarray]:
    """Every metric of rankings given as rows: order int [Q, R] (−1 = unfilled), grades [Q, N] → name → float64 [Q]."""
    judged = check_grades(grades)
    ranked = grades_of(order, judged)
    return {
        f"ndcg@{k}": ndcg_at_k(ranked, judged, k),
        f"recall@{recall_k}": recall_at_k(ranked, judged, recall_k, relevant),
        "mrr": reciprocal_rank(ranked, judged, relevant),
        f"hit@{k}": hit_at_k(ranked, judged, k, relevant),
        "map": average_precision(ranked, judged, relevant),
    }


def rank_metrics(
    scores: np.ndarray, grades: np.ndarray, k: int = 10, recall_k: int = 100, relevant: float = 1.0
) -> dict[str, np.ndarray]:
    """Every metric of a full ranking: scores [Q, N], grades [Q, N] (0 = unjudged) → name → float64 [Q].

    Raises:
        EvaluationError: NaN scores, negative grades, shapes that do not match.
    """
    if np.shape(scores) != np.shape(grades):
        raise EvaluationError(f"scores {np.shape(scores)} and grades {np.shape(grades)} differ in shape.")
    return ranking_metrics(rank_rows(scores), grades, k, recall_k, relevant)


def id_metrics(
    ranked_ids: Sequence[Sequence[str]],
    judgments: Sequence[Mapping[str, float]],
    k: int = 10,
    recall_k: int = 100,
    relevant: float = 1.0,
) -> dict[str, np.ndarray]:
    """Every metric of ranked id lists (any length) against {product_id: grade} of the same query → name → float64 [Q].

    Raises:
        EvaluationError: an id twice in one list, a negative or NaN grade, lists of different length.
    """
    if len(ranked_ids) != len(judgments):
        raise EvaluationError(f"{len(ranked_ids)} rankings but judgments of {len(judgments)} queries.")
    columns = [list(dict.fromkeys([*ids, *known])) for ids, known in zip(ranked_ids, judgments, strict=True)]
    width = max((len(column) for column in columns), default=0)
    length = max((len(ids) for ids in ranked_ids), default=0)
    grades = np.zeros((len(columns), width))
    order = np.full((len(columns), length), -1, dtype=np.int64)
    for row, (ids, known, column) in enumerate(zip(ranked_ids, judgments, columns, strict=True)):
        place = {product: at for at, product in enumerate(column)}
        order[row, : len(ids)] = [place[product] for product in ids]
        grades[row, : len(column)] = [known.get(product, 0.0) for product in column]
    return ranking_metrics(order, grades, k, recall_k, relevant)
