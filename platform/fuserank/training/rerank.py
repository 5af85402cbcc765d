"""Fits the reranker on candidates of validation queries, and measures what it adds by cross-validation over queries."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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

    It is fitted on all lists if cross-validation over queries shows a lift. Without one, or with too few queries to
    tell, it is an untrained one, which keeps the fused order: nothing unproven reorders answers.
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
    summary["reranked_ndcg@10"] = float(np.nanmean(after))
    if summary["reranked_ndcg@10"] <= summary["fused_ndcg@10"]:
        return Reranker(lists.features.shape[2]).eval(), summary
    return _fit(lists, steps, seed), summary
