"""Masked items over users' histories: the recommender's start, on the vectors that fresh fusion makes of products."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fuserank.losses.masked_item import mask_items, masked_item_loss
from fuserank.models.fused import FusedModel
from fuserank.training.augment import TOKENS
from fuserank.training.dropout import SeededDropout
from fuserank.training.group import ALONE, Group
from fuserank.training.noise import uniform
from fuserank.training.pretraining.task import noise


class MaskedItems(nn.Module):
    """The recommender, looking both ways, and the vector that stands for a hidden product."""

    def __init__(self, model: FusedModel, group: Group = ALONE):
        super().__init__()
        assert model.recommender is not None
        self.recommender, self.group = model.recommender, group
        self.unknown = nn.Parameter(torch.randn(model.width) * 0.02)

    def forward(self, history: dict[str, Tensor], products: Tensor) -> dict[str, Tensor]:
        """rows, types, gaps, mask [B, T] and keys [B] of all workers' histories; [N, E] the catalogue."""
        rows, mask = history["rows"], history["mask"]
        hidden = mask_items(mask, uniform(history["keys"], TOKENS, rows.shape[1]))
        own = torch.from_numpy(self.group.share(len(rows))).to(rows.device)
        table = self.recommender.table(products)
        items = torch.where(hidden[own, :, None], self.unknown, table[rows[own].clamp(min=0)])
        with SeededDropout(history["keys"][own]):
            told = self.recommender(items, history["types"][own], history["gaps"][own], mask[own], causal=False)
        told = self.group.collect(told, len(rows))
        return {"masked_item": masked_item_loss(told, table, rows, hidden)}


class BehaviourTask:
    """Batches of histories."""

    loss = "masked_item"

    def __init__(self, model: FusedModel, histories: dict[str, np.ndarray], products: Tensor, group: Group = ALONE):
        """products: [N, E] fused vectors of the whole catalogue."""
        assert model.recommender is not None
        events = model.recommender.events
        self.histories = {name: values[:, :events] for name, values in histories.items()}
        self.products, self.count = products, len(histories["rows"])
        self.module: nn.Module = MaskedItems(model, group)
        self.parts: Mapping[str, nn.Module] = {"recommender": model.recommender}

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        order = np.random.default_rng((seed, epoch, 6)).permutation(self.count)
        for step in range(start, self.steps(size)):
            users = order[step * size : (step + 1) * size]
            history = {name: torch.from_numpy(values[users]) for name, values in self.histories.items()}
            yield history | {"keys": noise(users, seed, epoch, step)}, self.products

    def steps(self, size: int) -> int:
        return -(-self.count // size)
