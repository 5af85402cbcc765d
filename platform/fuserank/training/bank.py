"""Encoder outputs of many products, kept from when they were last encoded: further candidates at no encoder's cost.

Cross-batch memory (Wang et al. 2020, https://arxiv.org/abs/1912.06798), taken one step earlier: what is kept is the
encoder's output and not the final vector, so projections, gates and fusion learn from every row of the bank at every
step, and only the encoders are limited to the batch. A part of the rows may be mined: the products that the model of
the moment wrongly ranks first for training queries (ANCE, Xiong et al. 2021, https://arxiv.org/abs/2007.00808).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuserank.models.fused import FusedModel
from fuserank.training.data import RankingData, Side
from fuserank.training.encode import autocast, encode_chunks, encode_table, place
from fuserank.training.group import ALONE, Group

POOL = 4  # products looked through for each one that is mined
ASKED = 1024  # training queries that negatives are mined for


class Bank:
    """K training products and what the encoders last made of them."""

    def __init__(self, data: RankingData, rows: np.ndarray, hidden: Mapping[str, Tensor], device: torch.device):
        """
        Args:
            rows: [K] product rows, increasing.
            hidden: modality → [K, H], any values where a row lacks the modality.
        """
        self.rows, self.device, self.modalities = rows, device, data.modalities
        self.mask = data.products.mask[rows][:, data.columns]
        self.hidden = {modality: values.to(device) for modality, values in hidden.items()}

    @torch.no_grad()
    def update(self, rows: np.ndarray, side: Side, hidden: Mapping[str, Tensor]) -> None:
        """Keep fresh encoder outputs of a batch's products, where the bank has them.

        Args:
            rows: [P] product rows; side: their side of the batch; hidden: modality → [rows with it, H].
        """
        at = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        known = torch.from_numpy(self.rows[at] == rows).to(self.device)
        target = torch.from_numpy(at).to(self.device)
        for modality, values in hidden.items():
            if modality not in self.hidden:
                self.hidden[modality] = torch.zeros(len(self.rows), values.shape[1], device=self.device)
            places = side.inputs[modality][0]
            here = known[places]
            self.hidden[modality][target[places][here]] = values.detach().float()[here]

    def beside(self, rows: np.ndarray) -> tuple[np.ndarray, Side]:
        """The bank's products that are not among `rows`: their product rows, and their inputs."""
        kept = np.flatnonzero(~np.isin(self.rows, rows))
        return self.rows[kept], self.side(kept)

    def side(self, kept: np.ndarray) -> Side:
        """The inputs of some of its places."""
        mask, inputs = self.mask[kept], {}
        for column, modality in enumerate(self.modalities):
            have = np.flatnonzero(mask[:, column])
            if len(have):
                chosen = torch.from_numpy(kept[have]).to(self.device)
                inputs[modality] = (torch.from_numpy(have), {"hidden": self.hidden[modality][chosen]})
        return Side(torch.from_numpy(mask), inputs).to(self.device)

    def part(self, data: RankingData, kept: np.ndarray) -> "Bank":
        """A bank of some of its places, increasing."""
        chosen = torch.from_numpy(kept).to(self.device)
        return Bank(data, self.rows[kept], {m: values[chosen] for m, values in self.hidden.items()}, self.device)

    def state(self) -> dict[str, Any]:
        """What `restore` makes the same bank of."""
        return {"rows": torch.from_numpy(self.rows), "hidden": dict(self.hidden)}


def restore(data: RankingData, state: Mapping[str, Any], device: torch.device) -> Bank:
    """The bank of an interrupted epoch."""
    return Bank(data, state["rows"].cpu().numpy(), state["hidden"], device)


def fill(
    model: FusedModel,
    data: RankingData,
    size: int,
    device: torch.device,
    draw: tuple[int, ...],
    group: Group = ALONE,
    mined: float = 0.0,
) -> Bank:
    """A bank for an epoch, drawn at random and encoded now.

    Args:
        size: K, or every training product where they are fewer.
        draw: what all choices follow from (seed, epoch).
        group: the workers that share the encoding; each holds the whole bank.
        mined: share of the rows that are hard negatives in place of random ones.
    """
    random, count = np.random.default_rng(draw), min(size, len(data.product_rows))
    hard = int(mined * count)
    looked = min(count - hard + POOL * hard, len(data.product_rows))
    drawn = random.choice(data.product_rows, looked, replace=False)
    bank = Bank(data, np.sort(drawn), {}, device)
    for chunk, side, hidden in encode_chunks(
        model, data.products, bank.rows, data.modalities, data.columns, device, group=group
    ):
        bank.update(chunk, side, hidden)
    if looked == count:
        return bank
    asked = np.sort(random.permutation(data.query_rows)[:ASKED])
    hardest = mine(model, data, bank, asked, hard, group)
    others = np.setdiff1d(np.searchsorted(bank.rows, drawn), hardest, assume_unique=True)
    return bank.part(data, np.sort(np.concatenate([hardest, others[: count - len(hardest)]])))


@torch.inference_mode()
def mine(
    model: FusedModel, data: RankingData, bank: Bank, asked: np.ndarray, count: int, group: Group = ALONE
) -> np.ndarray:
    """Places of the bank's hard negatives: what ranks first for the queries although no judgment calls it an answer.

    Args:
        asked: [Q] query rows. count: how many places, at most.

    Returns:
        int64 [≤ count], all queries' first choices before their second ones.
    """
    was_training = model.training
    model.eval()
    with autocast(bank.device):
        products = model.product_vectors(
            *place(model, side := bank.side(np.arange(len(bank.rows))), _held(side), "product")
        )
    vectors, mask = encode_table(model, data.queries, asked, data.columns, "query", bank.device, group=group)
    queries = model.query_vectors(vectors.to(bank.device), mask.to(bank.device))
    model.train(was_training)
    scores = queries.float() @ products.float().T
    answers = torch.from_numpy(data.judgments.matrix(asked, bank.rows)).to(bank.device) > 0
    depth = min(len(bank.rows), max(16, 4 * count // max(len(asked), 1)))
    best = scores.masked_fill(answers, float("-inf")).topk(depth, 1)
    turns = best.indices.T.flatten()[best.values.T.flatten().isfinite()].cpu().numpy()
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)][:count]


def _held(side: Side) -> dict[str, Tensor]:
    return {modality: inputs["hidden"] for modality, (_, inputs) in side.inputs.items()}
