"""Contrast of a few words of a product's text with the product: what somebody may type, before anybody has.

A random part of the text stands for a query, as in Contriever's cropping (Izacard et al. 2022,
https://arxiv.org/abs/2112.09118), and is to find the whole text, the picture and the sound. Encoders and projections
learn; a product whose text holds all the words of a part is no negative of it.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fuserank.features.table import FeatureTable
from fuserank.losses.contrast import contrast_loss
from fuserank.models.fused import FusedModel
from fuserank.training.augment import TOKENS
from fuserank.training.data import Side
from fuserank.training.encode import hidden_of, place
from fuserank.training.group import ALONE, Group
from fuserank.training.noise import uniform
from fuserank.training.pretraining.cross import CrossTask, met, product_side
from fuserank.training.pretraining.task import in_training, noise

FEWEST, MOST = 0.1, 0.6  # share of a text's words in a part
FRAME = 2  # tokens that open and close every text


class Spans(nn.Module):
    """Encoders and projections of the modalities that users can ask with."""

    def __init__(self, model: FusedModel, temperature: float = 0.07):
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, products: Side, parts: Side, alike: Tensor) -> dict[str, Tensor]:
        """A batch of products, parts of their texts, and [B, B] bool: whose part is in whose text."""
        vectors, mask = place(self.model, products, hidden_of(self.model, products), "product")
        asked, _ = place(self.model, parts, hidden_of(self.model, parts), "query")
        text, scale, found = self.model.modalities.index("text"), self.scale.exp().clamp(max=100), []
        for column in [self.model.modalities.index(m) for m in met(self.model)]:
            has = mask[:, column]
            if has.sum() >= 2:
                found.append(contrast_loss(asked[has, text], vectors[has, column], scale, alike[has][:, has]))
        return {"spans": torch.stack(found).mean() if found else vectors.sum() * 0}


class SpansTask(CrossTask):
    """Batches of products with a text of two words or more."""

    loss = "spans"

    def __init__(self, model: FusedModel, preprocess: Path, products: FeatureTable, group: Group = ALONE):
        super().__init__(model, preprocess, products, group)
        self.module = Spans(model)
        enough = np.diff(products.offsets) >= FRAME + 2
        told = in_training(preprocess, "products", len(products.ids)) & products.has("text") & enough
        self.rows = np.flatnonzero(told)
        self.count = len(self.rows)

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        order = np.random.default_rng((seed, epoch, 5)).permutation(self.rows)
        for step in range(start, self.steps(size)):
            rows = order[step * size : (step + 1) * size]
            side = product_side(self, rows, noise(rows, seed, epoch, step))
            keys = noise(rows, seed, epoch, step, 10)
            whole = self.table.batch(rows, "text")
            ids, seen = part_of(whole["input_ids"], whole["attention_mask"], keys)
            own = torch.from_numpy(self.group.share(len(rows)))
            mask = torch.zeros_like(side.mask)
            mask[:, self.model.modalities.index("text")] = True
            inputs = {"input_ids": ids[own], "attention_mask": seen[own]}
            parts = Side(mask, {"text": (torch.arange(len(rows)), inputs)}, keys, self.group)
            alike = held(ids, seen, whole["input_ids"], whole["attention_mask"])
            yield side, parts, alike


def part_of(ids: Tensor, seen: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """[B, T] ids and mask → those of a random part of each text, its tokens in their order and moved together: one at
    least; what opens and closes the text stays."""
    draws = uniform(keys, TOKENS, ids.shape[1] + 1)
    share, draws = FEWEST + (MOST - FEWEST) * draws[:, :1], draws[:, 1:]
    length = seen.sum(1, keepdim=True)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    inner = (places > 0) & (places < length - 1)
    least = torch.where(inner, draws, 2.0).amin(1, keepdim=True)
    kept = (inner & ((draws < share) | (draws == least))) | (places == 0) | (places == length - 1)
    order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
    mask = torch.gather(kept, 1, order)
    width = int(mask.sum(1).max())
    return torch.gather(ids, 1, order)[:, :width], mask[:, :width].to(seen.dtype)


def held(parts: Tensor, parts_seen: Tensor, texts: Tensor, texts_seen: Tensor) -> Tensor:
    """[B, B] bool: whether all tokens of part i are in text j."""
    known, places = torch.unique(torch.cat([parts.flatten(), texts.flatten()]), return_inverse=True)
    split = parts.numel()

    def sets(places: Tensor, seen: Tensor) -> Tensor:
        found = torch.zeros(len(seen), len(known))
        return found.scatter_add_(1, places.view(seen.shape), seen.float()).clamp_(max=1)

    wanted, there = sets(places[:split], parts_seen), sets(places[split:], texts_seen)
    return wanted @ there.T >= wanted.sum(1, keepdim=True)
