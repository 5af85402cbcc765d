"""Fits the reranker on candidates of validation queries and on the clicks of search sessions, and measures what it adds
by cross-validation over queries and over users."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuserank.evaluation.intervals import Interval, interval
from fuserank.evaluation.metrics import ndcg_at_k
from fuserank.losses.listwise import weighted_listwise_loss
from fuserank.models.reranker import Context, Reranker

BATCH = 32  # lists a step, of each kind
DEPTH = 128  # candidates of each, the first of the fused order
PREFIXES = ("", "clicks_")  # of figures, by group
PARTS = ("relevance", "personal", "attention")


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

    def part(self, rows: np.ndarray, depth: int | None = None) -> "Lists":
        """Some of the lists, of each the first `depth` candidates (None: all)."""
        index = torch.from_numpy(rows)
        context = None
        if self.context is not None:
            held = {f.name: getattr(self.context, f.name) for f in dataclasses.fields(Context)}
            held |= {name: held[name][:, :depth] for name in ("fused", "products", "present")}
            context = Context(**{name: tensor[index] for name, tensor in held.items()})
        features, grades, mask = (tensor[:, :depth][index] for tensor in (self.features, self.grades, self.mask))
        gains = None if self.gains is None else self.gains[:, :depth][index]
        return Lists(features, grades, mask, [self.judged[i] for i in rows], self.owner[rows], context, gains)

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


@dataclass(frozen=True)
class Part:
    """What a reranker may look at."""

    used: Tensor  # bool [F]
    attends: bool = False
    clicks: bool = False  # fitted on clicks alone


def new_reranker(lists: Lists, attends: bool = False) -> Reranker:
    """An untrained one that fits the lists."""
    features = lists.features.shape[2]
    if lists.context is None or not attends:
        return Reranker(features).eval()
    products, fused = lists.context.products, lists.context.fused
    return Reranker(features, products.shape[2], products.shape[3], fused.shape[2]).eval()


def _fit(groups: list[Lists], steps: int, seed: int, part: Part) -> Reranker:
    """Each step sees a batch of every group, of each list what retrieval put first; their losses count alike."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    groups = groups[1:] if part.clicks else groups
    reranker = new_reranker(groups[0], part.attends).train()
    known = torch.cat([lists.features[lists.mask] for lists in groups])
    reranker.center.copy_(known.mean(0))
    reranker.spread.copy_(known.std(0, correction=0).clamp(min=1e-3))
    reranker.used.copy_(part.used)
    linear = list(reranker.linear.parameters())
    network = [p for name, p in reranker.named_parameters() if not name.startswith("linear.")]
    groups_of = [{"params": linear, "lr": 0.02}, {"params": network, "lr": 0.003}]  # attention learns by heart at .02
    optimizer = torch.optim.AdamW(groups_of, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        for lists in groups:
            rows = np.arange(len(lists.owner))
            if len(rows) > BATCH:
                rows = torch.randperm(len(rows), generator=draw)[:BATCH].numpy()
            chosen = lists.part(rows, DEPTH)
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
    lists: Lists,
    seed: int,
    folds: int = 5,
    steps: int = 100,
    clicks: Lists | None = None,
    personal: Sequence[bool] = (),
) -> tuple[Reranker, dict[str, float]]:
    """The reranker, and the cross-validated nDCG@10 of it and of the fused order it started from.

    It is put together of parts, each tried on what was kept before it: `relevance`, all features that tell nothing of
    the user; `personal`, those that do, fitted on clicks alone unless relevance was kept; `attention`. A part is kept
    if its lift over what was kept before, at first the fused order, is clear of 0 in cross-validation – the 95 %
    bootstrap interval of the paired difference, owners resampled – on judgments or on clicks, and not clearly negative
    on the other. Without any, or with too few owners to tell, it is an untrained one, which keeps the fused order:
    nothing unproven reorders answers.

    Args:
        lists: of judged queries, owned by them. clicks: of search sessions, owned by their users.
        personal: of each feature, whether it tells of the user; none if not given.

    Returns:
        The reranker and `fused_ndcg@10`; where there were enough owners also `<part>_ndcg@10` of every part tried,
        `<part>` (1 or 0, whether it was kept) and, of all that was kept – if nothing was, of relevance –
        `reranked_ndcg@10`, `lift_low` and `lift_high`; `kept` and `attends` (1 or 0). With clicks the measures of them
        too, after `clicks_`.
    """
    groups = [lists] if clicks is None or len(np.unique(clicks.owner)) < 2 * folds else [lists, clicks]
    fused = [ndcg(group.features[..., 0], group) for group in groups]
    summary = {"fused_ndcg@10": float(np.nanmean(fused[0]))}
    if len(np.unique(lists.owner)) < 2 * folds:
        return new_reranker(lists), summary
    of_user = torch.tensor([*personal] or [False] * lists.features.shape[2])
    only = torch.zeros(len(of_user), dtype=torch.bool)
    only[0] = True  # the fused score, for its scale
    kept, best, tried = Part(only), fused, dict[str, list[np.ndarray]]()
    for name in PARTS[: 3 if lists.context is not None else 2]:
        if name == "personal" and (len(groups) == 1 or not of_user.any()):
            continue
        used = {"relevance": ~of_user, "personal": kept.used | of_user}.get(name, kept.used)
        clicked = len(groups) > 1 and not (used & ~of_user & ~only).any()
        part = Part(used, name == "attention", clicked and name == "personal")
        tried[name] = _cross_validated(groups, folds, steps, seed, part)
        holds = proven(lifts(tried[name], best, groups, seed))
        summary[name] = float(holds)
        if holds:
            kept, best = part, tried[name]
    found = best if best is not fused else tried["relevance"]
    for prefix, before, after, lift, *parts in zip(
        PREFIXES, fused, found, lifts(found, fused, groups, seed), *tried.values(), strict=False
    ):
        summary |= {f"{prefix}fused_ndcg@10": float(np.nanmean(before))}
        summary |= {f"{prefix}{n}_ndcg@10": float(np.nanmean(v)) for n, v in zip(tried, parts, strict=True)}
        summary |= {f"{prefix}reranked_ndcg@10": float(np.nanmean(after))}
        summary |= {f"{prefix}lift_low": lift.low, f"{prefix}lift_high": lift.high}
    summary |= {"kept": float(best is not fused), "attends": float(kept.attends)}
    return (new_reranker(lists) if best is fused else _fit(groups, steps, seed, kept)), summary


def _cross_validated(groups: list[Lists], folds: int, steps: int, seed: int, part: Part) -> list[np.ndarray]:
    """nDCG@10 [Q] of each group's lists, each scored by a reranker that was fitted without its owner."""
    sides = [cross_folds(group.owner, folds, seed) for group in groups]
    found = [np.full(len(group.owner), np.nan) for group in groups]
    for held in range(folds):
        training = [group.part(np.flatnonzero(side != held)) for group, side in zip(groups, sides, strict=True)]
        fitted = _fit(training, steps, seed, part)
        for group, side, values in zip(groups, sides, found, strict=True):
            rows = np.flatnonzero(side == held)
            mine = group.part(rows)
            values[rows] = ndcg(scored(fitted, mine), mine)
    return found


def lifts(after: list[np.ndarray], before: list[np.ndarray], groups: list[Lists], seed: int) -> list[Interval]:
    """Of each group the paired difference's interval, owners resampled. after, before: [Q] each."""
    return [
        interval(_by_owner(new - old, group.owner), seed=seed)
        for new, old, group in zip(after, before, groups, strict=True)
    ]


def proven(found: list[Interval]) -> bool:
    """Clear of 0 somewhere, and not clearly below it anywhere."""
    return any(lift.low > 0 for lift in found) and not any(lift.high < 0 for lift in found)


def cross_folds(owner: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each list."""
    owners = np.unique(owner)
    return (np.random.default_rng(seed).permutation(len(owners)) % folds)[np.searchsorted(owners, owner)]


def _by_owner(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Mean of each owner's values that are not NaN: lists of one owner are no independent observations."""
    known = ~np.isnan(values)
    _, group = np.unique(owner[known], return_inverse=True)
    return np.bincount(group, values[known]) / np.bincount(group)
