"""How far each modality of a product is trusted: a factor on its vectors, fitted on validation products.

Training sees its own products again and again, and an encoder that has learnt them by heart says more about them than
it can about others. What is fused trusts it accordingly: with a tenth of fashion's labels the fused score stood .04
below text alone (docs/EXPERIMENTS.md, 2026-11-27). A number a modality, told by products that training has not seen,
mends that, and is too little to learn them by heart in turn.

Q queries · N products · M modalities · V variants: the products as they are, and with
a modality hidden of half of them.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fuserank.evaluation.intervals import paired_difference
from fuserank.evaluation.metrics import rank_metrics
from fuserank.models.fused import QUERYABLE, FusedModel
from fuserank.training.encode import encode_table
from fuserank.training.group import ALONE, Group
from fuserank.training.validate import Validation

FACTORS = (0.1, 0.25, 0.4, 0.65, 1.0, 1.6, 2.5, 4.0)
ROUNDS = 2  # over the modalities
FOLDS = 5
FEWEST = 20  # queries with a relevant product, or nothing is fitted
PRODUCTS, QUERIES = 20_000, 500  # of more, those that are relevant and a random choice

Factors = tuple[float, ...]


@torch.no_grad()
def fit_trust(
    model: FusedModel, validation: Validation, device: torch.device, seed: int, group: Group = ALONE
) -> dict[str, float]:
    """Set `model.trust`, which stays 1 unless five-fold cross-validation over queries shows a lift of nDCG@10, the mean
    of all variants, whose interval is above 0. Every worker of a group calls this and gets the same.

    Returns:
        `trust_<modality>`, `untrusted_ndcg@10`, `trusted_ndcg@10` (cross-validated), `trust_lift_low` and `_high`;
        nothing where there are too few queries to tell.
    """
    model.trust.fill_(1.0)
    trial = _trial(model, validation, device, seed, group)
    if trial is None:
        return {}
    training = model.training
    model.eval()
    plain = trial.values((1.0,) * len(model.modalities))
    side = np.random.default_rng((seed, 9)).permutation(len(plain)) % FOLDS
    found = np.full(len(plain), np.nan)
    for held in range(FOLDS):
        found[side == held] = trial.values(trial.best(side != held))[side == held]
    lift = paired_difference(found, plain, seed=seed)
    if lift.low > 0:
        model.trust.copy_(torch.tensor(trial.best(np.ones(len(plain), bool))))
    model.train(training)
    factors = {f"trust_{name}": float(factor) for name, factor in zip(model.modalities, model.trust, strict=True)}
    means = {"untrusted_ndcg@10": float(np.nanmean(plain)), "trusted_ndcg@10": float(np.nanmean(found))}
    return factors | means | {"trust_lift_low": lift.low, "trust_lift_high": lift.high}


@dataclass
class _Trial:
    """Validation vectors, ranked by any factors; remembers what was tried."""

    model: FusedModel
    asked: Tensor  # [Q, E]
    vectors: Tensor  # [N, M, D]
    masks: list[Tensor]  # V of [N, M]
    grades: np.ndarray  # [Q, N]
    known: dict[Factors, np.ndarray] = field(default_factory=dict)

    def values(self, factors: Factors) -> np.ndarray:
        """nDCG@10 of each query: half that of the products as they are, half the mean of the other variants. [Q]"""
        if factors not in self.known:
            scaled = self.vectors * torch.tensor(factors, device=self.vectors.device)[:, None]
            rows = []
            for mask in self.masks:
                scores = self.asked @ self.model.product_vectors(scaled, mask).T
                rows.append(rank_metrics(scores.float().cpu().numpy(), self.grades)["ndcg@10"])
            whole, hidden = rows[0], rows[1:]
            self.known[factors] = (whole + np.mean(hidden, axis=0)) / 2 if hidden else whole
        return self.known[factors]

    def best(self, queries: np.ndarray) -> Factors:
        """The factors that rank best for some queries, found one modality after the other. queries: bool [Q]."""
        chosen = (1.0,) * self.vectors.shape[1]
        for _ in range(ROUNDS):
            for place in range(len(chosen)):
                tried = [(*chosen[:place], factor, *chosen[place + 1 :]) for factor in FACTORS]
                chosen = max(tried, key=lambda one: (np.nanmean(self.values(one)[queries]), one == chosen))
        return chosen


def _trial(model: FusedModel, validation: Validation, device: torch.device, seed: int, group: Group) -> _Trial | None:
    random = np.random.default_rng((seed, 10))
    queries, rows = validation.query_rows, validation.product_rows
    if not len(queries) or not len(rows):
        return None
    grades = validation.judgments.matrix(queries, rows)
    asking = np.flatnonzero((grades > 0).any(1))
    if len(asking) < FEWEST:
        return None
    asking = np.sort(random.permutation(asking)[:QUERIES])
    wanted = (grades[asking] > 0).any(0)
    others = random.permutation(np.flatnonzero(~wanted))[: max(0, PRODUCTS - int(wanted.sum()))]
    kept = np.sort(np.concatenate([np.flatnonzero(wanted), others]))
    products = encode_table(model, validation.products, rows[kept], validation.columns, "product", device, group=group)
    asked = encode_table(model, validation.queries, queries[asking], validation.columns, "query", device, group=group)
    place = next(model.parameters()).device
    vectors, mask = (tensor.to(place) for tensor in products)
    masks, half = [mask], torch.from_numpy(random.permutation(len(kept)) % 2 == 0).to(place)
    for column, modality in enumerate(model.modalities):
        if modality in QUERYABLE and bool(mask[:, column].any()) and mask.shape[1] > 1:
            masks.append(mask.clone())
            masks[-1][half, column] = False
    return _Trial(
        model,
        model.query_vectors(*(tensor.to(place) for tensor in asked)),
        vectors,
        masks,
        grades[np.ix_(asking, kept)],
    )
