"""Fits the reranker on candidates of validation queries and on the clicks of search sessions, and measures what it adds
by cross-validation over queries and over users."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuserank.evaluation.intervals import interval
from fuserank.evaluation.metrics import ndcg_at_k
from fuserank.losses.listwise import weighted_listwise_loss
from fuserank.models.reranker import Context, Reranker

BATCH = 32  # lists a step, of each kind


@dataclass
class Lists:
    """Candidates of Q queries, padded to K."""

    features: Tensor  # [Q, K, F]
    grades: Tensor  # [Q, K]
    mask: Tensor  # bool [Q, K]
    judged: list[np.ndarray]  # every judged grade of each query, for the ideal ranking
    owner: np.ndarray  # int [Q]: lists of one owner never lie on both sides of a fold
    context: Context | None = None  # without one, a reranker that reads features alone is fitted
    gains: Tensor | None = None  # [Q, K] what the loss ranks by; None: 2^grade − 1

    def part(self, rows: np.ndarray) -> "Lists":
        index = torch.from_numpy(rows)
        context = None
        if self.context is not None:
            context = Context(**{f.name: getattr(self.context, f.name)[index] for f in dataclasses.fields(Context)})
        gains = None if self.gains is None else self.gains[index]
        judged = [self.judged[i] for i in rows]
        return Lists(
            self.features[index], self.grades[index], self.mask[index], judged, self.owner[rows], context, gains
        )

    def target(self) -> Tensor:
        """[Q, K] gains."""
        return 2.0**self.grades - 1 if self.gains is None else self.gains


def pad_lists(
    features: list[np.ndarray],
    grades: list[np.ndarray],
    judged: list[np.ndarray],
    owner: list[int],
    context: Context | None = None,
    gains: list[np.ndarray] | None = None,
) -> Lists:
    """Ragged lists ([K_q, F] and [K_q] each) → Lists; the context is padded already."""
    longest = max(len(g) for g in grades)
    padded = torch.zeros(len(features), longest, features[0].shape[1])
    graded, mask = torch.zeros(len(features), longest), torch.zeros(len(features), longest, dtype=torch.bool)
    weighed = None if gains is None else torch.zeros(len(features), longest)
    for row, (feature, grade) in enumerate(zip(features, grades, strict=True)):
        padded[row, : len(feature)] = torch.from_numpy(feature)
        graded[row, : len(grade)] = torch.from_numpy(grade)
        mask[row, : len(grade)] = True
        if weighed is not None and gains is not None:
            weighed[row, : len(grade)] = torch.from_numpy(gains[row])
    return Lists(padded, graded, mask, judged, np.array(owner), context, weighed)


def new_reranker(lists: Lists) -> Reranker:
    """An untrained one that fits the lists."""
    features = lists.features.shape[2]
    if lists.context is None:
        return Reranker(features).eval()
    products, fused = lists.context.products, lists.context.fused
    return Reranker(features, products.shape[2], products.shape[3], fused.shape[2]).eval()


def _fit(groups: list[Lists], steps: int, seed: int) -> Reranker:
    """Each step sees a batch of every group; their losses count alike."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    reranker = new_reranker(groups[0]).train()
    known = torch.cat([lists.features[lists.mask] for lists in groups])
    reranker.center.copy_(known.mean(0))
    reranker.spread.copy_(known.std(0, correction=0).clamp(min=1e-3))
    linear = list(reranker.linear.parameters())
    network = [p for name, p in reranker.named_parameters() if not name.startswith("linear.")]
    groups_of = [{"params": linear, "lr": 0.02}, {"params": network, "lr": 0.003}]  # attention learns by heart at .02
    optimizer = torch.optim.AdamW(groups_of, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        for lists in groups:
            chosen = lists
            if len(lists.owner) > BATCH:
                chosen = lists.part(torch.randperm(len(lists.owner), generator=draw)[:BATCH].numpy())
            scores = reranker(chosen.features, chosen.context)
            weighted_listwise_loss(scores, chosen.target(), chosen.mask).backward()
        optimizer.step()
        schedule.step()
    return reranker.eval()


@torch.inference_mode()
def scored(reranker: Reranker, lists: Lists) -> Tensor:
    """[Q, K] scores."""
    parts = [lists.part(rows) for rows in np.array_split(np.arange(len(lists.owner)), -(-len(lists.owner) // BATCH))]
    return torch.cat([reranker(part.features, part.context) for part in parts])


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


def fit_reranker(
    lists: Lists, seed: int, folds: int = 5, steps: int = 100, clicks: Lists | None = None
) -> tuple[Reranker, dict[str, float]]:
    """The reranker, and the cross-validated nDCG@10 of it and of the fused order it started from.

    It is fitted on all lists if the lift seen in cross-validation is clear of 0 – the 95 % bootstrap interval of the
    paired difference, owners resampled – on judgments or on clicks, and not clearly negative on the other. Without
    that, or with too few owners to tell, it is an untrained one, which keeps the fused order: nothing unproven reorders
    answers.

    Args:
        lists: of judged queries, owned by them. clicks: of search sessions, owned by their users.

    Returns:
        The reranker and `fused_ndcg@10`; where there were enough owners also `reranked_ndcg@10`, `lift_low`,
        `lift_high`, and `kept` (1 or 0); with clicks the same names of them, after `clicks_`.
    """
    groups = [lists] if clicks is None or len(np.unique(clicks.owner)) < 2 * folds else [lists, clicks]
    before = [ndcg(group.features[..., 0], group) for group in groups]
    summary = {"fused_ndcg@10": float(np.nanmean(before[0]))}
    if len(np.unique(lists.owner)) < 2 * folds:
        return new_reranker(lists), summary
    sides = [_folds(group.owner, folds, seed) for group in groups]
    after = [np.full(len(group.owner), np.nan) for group in groups]
    for held in range(folds):
        training = [group.part(np.flatnonzero(side != held)) for group, side in zip(groups, sides, strict=True)]
        fitted = _fit(training, steps, seed)
        for group, side, values in zip(groups, sides, after, strict=True):
            rows = np.flatnonzero(side == held)
            part = group.part(rows)
            values[rows] = ndcg(scored(fitted, part), part)
    lifts = [
        interval(_by_owner(found - fused, group.owner), seed=seed)
        for group, fused, found in zip(groups, before, after, strict=True)
    ]
    for prefix, fused, found, lift in zip(("", "clicks_"), before, after, lifts, strict=False):
        summary |= {f"{prefix}fused_ndcg@10": float(np.nanmean(fused))}
        summary |= {f"{prefix}reranked_ndcg@10": float(np.nanmean(found))}
        summary |= {f"{prefix}lift_low": lift.low, f"{prefix}lift_high": lift.high}
    kept = any(lift.low > 0 for lift in lifts) and not any(lift.high < 0 for lift in lifts)
    summary["kept"] = float(kept)
    return (_fit(groups, steps, seed) if kept else new_reranker(lists)), summary


def _folds(owner: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each list."""
    owners = np.unique(owner)
    return (np.random.default_rng(seed).permutation(len(owners)) % folds)[np.searchsorted(owners, owner)]


def _by_owner(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Mean of each owner's values that are not NaN: lists of one owner are no independent observations."""
    known = ~np.isnan(values)
    _, group = np.unique(owner[known], return_inverse=True)
    return np.bincount(group, values[known]) / np.bincount(group)
