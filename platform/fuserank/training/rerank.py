"""Fits the reranker on candidates of validation queries, and measures what it adds by cross-validation over queries."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuserank.evaluation.intervals import interval
from fuserank.evaluation.metrics import ndcg_at_k
from fuserank.losses.listwise import listwise_loss
from fuserank.models.reranker import Reranker


@dataclass
class Lists:
    """Candidates of Q queries, padded to K."""

    features: Tensor  # [Q, K, F]
    grades: Tensor  # [Q, K]
    mask: Tensor  # bool [Q, K]
    judged: list[np.ndarray]  # every judged grade of each query, for the ideal ranking
    owner: np.ndarray  # int [Q]: lists of one owner never lie on both sides of a fold

    def part(self, rows: np.ndarray) -> "Lists":
        index = torch.from_numpy(rows)
        judged = [self.judged[i] for i in rows]
        return Lists(self.features[index], self.grades[index], self.mask[index], judged, self.owner[rows])


def pad_lists(
    features: list[np.ndarray], grades: list[np.ndarray], judged: list[np.ndarray], owner: list[int]
) -> Lists:
    """Ragged lists ([K_q, F] and [K_q] each) → Lists."""
    longest = max(len(g) for g in grades)
    padded = torch.zeros(len(features), longest, features[0].shape[1])
    graded, mask = torch.zeros(len(features), longest), torch.zeros(len(features), longest, dtype=torch.bool)
    for row, (feature, grade) in enumerate(zip(features, grades, strict=True)):
        padded[row, : len(feature)] = torch.from_numpy(feature)
        graded[row, : len(grade)] = torch.from_numpy(grade)
        mask[row, : len(grade)] = True
    return Lists(padded, graded, mask, judged, np.array(owner))


def _fit(lists: Lists, steps: int, seed: int) -> Reranker:
    torch.manual_seed(seed)
    reranker = Reranker(lists.features.shape[2])
    known = lists.features[lists.mask]
    reranker.center.copy_(known.mean(0))
    reranker.spread.copy_(known.std(0, correction=0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(reranker.parameters(), lr=0.02, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = listwise_loss(reranker(lists.features), lists.grades, lists.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reranker.eval()


@torch.inference_mode()
def ndcg(scores: Tensor, lists: Lists) -> np.ndarray:
    """nDCG@10 [Q] of the lists ordered by scores [Q, K]; the ideal ranks everything judged."""
    order = scores.masked_fill(~lists.mask, float("-inf")).sort(dim=1, descending=True, stable=True).indices
    ranked = lists.grades.gather(1, order).numpy()
    longest = max(max((len(j) for j in lists.judged), default=1), 1)
    judged = np.zeros((len(lists.judged), longest))
    for row, grades in enumerate(lists.judged):
        judged[row, : len(grades)] = grades
    return ndcg_at_k(ranked, judged, 10)


def fit_reranker(lists: Lists, seed: int, folds: int = 5, steps: int = 200) -> tuple[Reranker, dict[str, float]]:
    """The reranker, and the cross-validated nDCG@10 of it and of the fused order it started from.

    It is fitted on all lists if the lift seen in cross-validation is clear of 0: the 95 % bootstrap interval of the
    paired difference, owners resampled. Without that, or with too few owners to tell, it is an untrained one, which
    keeps the fused order: nothing unproven reorders answers.

    Returns:
        The reranker and `fused_ndcg@10`; where there were enough owners also `reranked_ndcg@10`, `lift_low`,
        `lift_high`, and `kept` (1 or 0).
    """
    owners = np.unique(lists.owner)
    fold_of = np.random.default_rng(seed).permutation(len(owners)) % folds
    fold = fold_of[np.searchsorted(owners, lists.owner)]
    before, after = ndcg(lists.features[..., 0], lists), np.full(len(fold), np.nan)
    summary = {"fused_ndcg@10": float(np.nanmean(before))}
    if len(owners) < 2 * folds:
        return Reranker(lists.features.shape[2]).eval(), summary
    for held in range(folds):
        fitted = _fit(lists.part(np.flatnonzero(fold != held)), steps, seed)
        rows = np.flatnonzero(fold == held)
        part = lists.part(rows)
        with torch.inference_mode():
            after[rows] = ndcg(fitted(part.features), part)
    lift = interval(_by_owner(after - before, lists.owner), seed=seed)
    kept = lift.low > 0
    summary |= {"reranked_ndcg@10": float(np.nanmean(after)), "lift_low": lift.low, "lift_high": lift.high}
    summary["kept"] = float(kept)
    return (_fit(lists, steps, seed) if kept else Reranker(lists.features.shape[2]).eval()), summary


def _by_owner(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Mean of each owner's values that are not NaN: lists of one owner are no independent observations."""
    known = ~np.isnan(values)
    _, group = np.unique(owner[known], return_inverse=True)
    return np.bincount(group, values[known]) / np.bincount(group)
