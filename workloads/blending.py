"""The recommender's half of `fuserank index`: how much each part of a recommendation counts (retrieval/blend.py).

Before that, how neighbours are counted is chosen by how they rank these users' products (feedback/neighbours.py); what
goes out counts validation's turns too. Each user's held-out validation product is to be chosen among the candidates
that serving would find: a conditional logit model (McFadden 1974) of non-negative weights, which is convex, then moved
on nDCG@10 itself where cross-validation shows that this helps. They are kept unless two-fold cross-validation over
users proves them worse (nDCG@10) than the best part alone, which then goes out: of few users likelihood tells more than
the ten best places do.

U users · K candidates · P parts.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuserank.artifacts import stage_folder
from fuserank.config import Experiment
from fuserank.evaluation.intervals import paired_difference
from fuserank.feedback.behaviour import count_turns
from fuserank.feedback.neighbours import Neighbours, Shape, fitted
from fuserank.feedback.questions import Question, questions
from fuserank.feedback.sequences import training_sequences
from fuserank.models.fused import FusedModel
from fuserank.records.splits import VALIDATION
from fuserank.retrieval.blend import PARTS, Blend, Blender, Offer, Wish
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.expected import Expected
from fuserank.retrieval.pipeline import Retriever
from workloads.reranking import Shop, catalogue_of

USERS, SHAPED = 16_000, 4000  # asked at most, drawn by the seed; of them, by whom neighbours are counted
FEWEST = 40  # users that are asked, or nothing is fitted
STEPS, RATE, DECAY = 300, 0.05, 1e-3
ROUNDS, FACTORS, ADDED = 2, (0.0, 0.5, 0.7, 1.4, 2.0), 0.3  # of climbing; added: in shares of the largest weight
K = 10


@dataclass(frozen=True)
class Asked:
    """Users' candidates and what they turned to."""

    parts: torch.Tensor  # [U, K, P], each in units of its spread
    mask: torch.Tensor  # bool [U, K]
    target: torch.Tensor  # int64 [U], its place
    found: np.ndarray  # bool [U]: the candidates held it; else it was put among them, and counts as missed


def fit(
    experiment: Experiment, model: FusedModel, shop: Shop, device: torch.device
) -> tuple[Blend, dict[str, float], Neighbours]:
    """As fit_blend, of a shop that is about to be indexed; {}, no figures and no neighbours where it has no events."""
    file = stage_folder(experiment, "preprocess") / "events.parquet"
    if not file.is_file():
        return Blend(), {}, Neighbours.count([], shop.products.num_rows)
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = catalogue_of(
            model, shop.products, shop.vectors, shop.mask, shop.texts, Path(scratch), False, device
        )
        return fit_blend(catalogue, model, pq.read_table(file), experiment.seed)


def fit_blend(
    catalogue: Catalogue, model: FusedModel, events: pa.Table, seed: int
) -> tuple[Blend, dict[str, float], Neighbours]:
    """The blend, {} where there are too few users to tell, figures, and the neighbours it counts with. Figures:
    `users`; of each part alone `<part>_ndcg@10`; cross-validated `blend_ndcg@10`, and its lift over the best part
    (`blend_lift_low`, `blend_lift_high`); how neighbours are counted (`neighbours_…`)."""
    asked_of = list(questions(events, catalogue.ids, VALIDATION)[0].values())
    trained, validated = (
        [past["rows"] for past in training_sequences(events, catalogue.ids, also)] for also in (False, True)
    )
    if len(asked_of) > USERS:
        kept = np.random.default_rng(seed).choice(len(asked_of), USERS, replace=False)
        asked_of = [asked_of[place] for place in sorted(kept)]
    if len(asked_of) < FEWEST:
        return Blend(), {"users": float(len(asked_of))}, Neighbours.count(validated, catalogue.size)
    some = [asked_of[place] for place in np.unique(np.linspace(0, len(asked_of) - 1, SHAPED).astype(int))]
    shape = fitted(Shape(), lambda one: _ranks(Neighbours.count(trained, catalogue.size, one), some))
    neighbours = Neighbours.count(trained, catalogue.size, shape)
    counted = count_turns([rows.tolist() for rows in trained], catalogue.size)
    expected = None if model.recommender is None else Expected(model.recommender, catalogue)
    blender = Blender(Retriever(catalogue), counted, neighbours, expected)
    nobody: list[np.ndarray | None] = [None] * len(asked_of)
    vectors = nobody if expected is None else list(expected.users([past for past, _ in asked_of]))
    wishes = [
        Wish(past["rows"].tolist(), vector, exclude=np.unique(past["rows"]))
        for (past, _), vector in zip(asked_of, vectors, strict=True)
    ]
    offers = [offer for offer in blender.offers(wishes, [K] * len(wishes)) if isinstance(offer, Offer)]
    asked, spread = _pad(blender, wishes, offers, [target for _, target in asked_of])
    side = np.random.default_rng(seed + 1).permutation(len(asked_of)) % 2
    tried: list[np.ndarray] = []
    for fit_one in (_fit, _climb):
        values = np.zeros(len(asked_of))
        for held in (0, 1):
            values[side == held] = _ndcg(asked, fit_one(asked, np.flatnonzero(side != held)))[side == held]
        tried.append(values)
    climbs = bool(tried[1].mean() > tried[0].mean())
    blended = tried[climbs]
    alone = {name: _ndcg(asked, torch.eye(len(PARTS))[place]) for place, name in enumerate(PARTS)}
    if expected is None:
        del alone["recommender"]
    single = max(alone, key=lambda name: float(alone[name].mean()))
    lift = paired_difference(blended, alone[single], seed=seed)
    figures = {
        "users": float(len(asked_of)),
        **{f"{name}_ndcg@10": float(values.mean()) for name, values in alone.items()},
        "blend_ndcg@10": float(blended.mean()),
        "blend_lift_low": lift.low,
        "blend_lift_high": lift.high,
        **{f"neighbours_{name}": value for name, value in asdict(shape).items()},
    }
    served = Neighbours.count(validated, catalogue.size, shape)
    if lift.high < 0:
        return Blend({single: 1.0}), figures, served
    weights = ((_climb if climbs else _fit)(asked, np.arange(len(asked_of))) / spread).tolist()
    return Blend({name: weight for name, weight in zip(PARTS, weights, strict=True) if weight > 0}), figures, served


def _ranks(neighbours: Neighbours, asked: Sequence[Question]) -> float:
    """Mean nDCG@10 of neighbours alone over the whole catalogue, seen products left out."""
    found = 0.0
    for past, target in asked:
        scores = neighbours.scores(past["rows"], neighbours.products)
        mine = scores[target]
        scores[past["rows"]] = -1
        rank = int((scores >= mine).sum()) if mine > 0 else K + 1  # of equal scores the last
        found += 1 / np.log2(max(rank, 1) + 1) if rank <= K else 0.0
    return found / len(asked)


def _pad(blender: Blender, wishes: list[Wish], offers: list[Offer], targets: list[int]) -> tuple[Asked, torch.Tensor]:
    """Candidates of all users, and the spread of each part. [P]"""
    rows, parts, found = [], [], np.zeros(len(offers), bool)
    for i, (wish, offer, target) in enumerate(zip(wishes, offers, targets, strict=True)):
        found[i] = target in offer.rows
        own = offer.parts
        if not found[i]:
            own = np.concatenate([own, blender.parts(np.array([target]), wish.recent, wish.user)])
        rows.append(np.append(offer.rows, [] if found[i] else [target]).astype(np.int64))
        parts.append(own)
    longest = max(len(one) for one in rows)
    padded = np.zeros((len(rows), longest, len(PARTS)), np.float32)
    mask = np.zeros((len(rows), longest), bool)
    for i, one in enumerate(parts):
        padded[i, : len(one)], mask[i, : len(one)] = one, True
    target = [int(np.flatnonzero(one == wanted)[0]) for one, wanted in zip(rows, targets, strict=True)]
    spread = np.maximum(np.mean([one.std(0) for one in parts], axis=0), 1e-6)
    asked = Asked(torch.from_numpy(padded / spread), torch.from_numpy(mask), torch.tensor(target), found)
    return asked, torch.from_numpy(spread)


def _fit(asked: Asked, users: np.ndarray) -> torch.Tensor:
    """Weights [P] ≥ 0 of parts in units of their spreads, of greatest likelihood. Users whose product no search finds
    say nothing of how those that are found should stand: with them Beauty's neighbours weighed nothing, and validation
    nDCG@10 was .070 in place of .076."""
    chosen = torch.from_numpy(users[asked.found[users]])
    parts, mask, target = asked.parts[chosen], asked.mask[chosen], asked.target[chosen]
    weights = torch.full((len(PARTS),), 0.5, requires_grad=True)
    if not len(chosen):  # nothing to learn from: all alike
        return weights.detach()
    optimizer = torch.optim.Adam([weights], RATE)
    for _ in range(STEPS):
        scores = (parts @ weights).masked_fill(~mask, -torch.inf)
        loss = torch.nn.functional.cross_entropy(scores, target) + DECAY * (weights**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            weights.clamp_(min=0)
    return weights.detach()


def _climb(asked: Asked, users: np.ndarray) -> torch.Tensor:
    """From the weights of greatest likelihood on, one part after the other, as long as nDCG@10 of these users rises:
    likelihood minds the whole list, users its first places."""
    chosen = torch.from_numpy(users)
    own = Asked(asked.parts[chosen], asked.mask[chosen], asked.target[chosen], asked.found[users])
    best = _fit(asked, users)
    score = _ndcg(own, best).mean()
    for _ in range(ROUNDS):
        for place in range(len(PARTS)):
            start, largest = float(best[place]), float(best.max())
            for value in (*(start * factor for factor in FACTORS), start + largest * ADDED):
                other = best.clone()
                other[place] = value
                if (found := _ndcg(own, other).mean()) > score:
                    best, score = other, found
    return best


def _ndcg(asked: Asked, weights: torch.Tensor) -> np.ndarray:
    """nDCG@10 of each user; a target that no candidate search finds counts 0. [U]"""
    scores = (asked.parts @ weights).masked_fill(~asked.mask, -torch.inf)
    mine = scores.gather(1, asked.target[:, None])
    rank = (scores >= mine).sum(1).numpy()  # of equal scores the last
    return np.where(asked.found & (rank <= K), 1 / np.log2(rank + 1), 0.0)
