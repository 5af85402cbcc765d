"""Cross-modal contrast: what is said, shown and spoken of one product meets in one space.

After CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020), over every pair of modalities that users can ask
with. Encoders and projections learn; products with the same text are no negatives of each other.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fuserank.features.table import FeatureTable
from fuserank.losses.contrast import contrast_loss
from fuserank.models.fused import QUERYABLE, FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training.augment import views
from fuserank.training.data import Side, gather
from fuserank.training.encode import hidden_of, place
from fuserank.training.group import ALONE, Group
from fuserank.training.pretraining.task import in_training, noise


class CrossModal(nn.Module):
    """Encoders and projections of the modalities that meet."""

    def __init__(self, model: FusedModel, temperature: float = 0.07):
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, products: Side, alike: Tensor) -> dict[str, Tensor]:
        """A batch of products, and [B, B] bool: which have the same text."""
        vectors, mask = place(self.model, products, hidden_of(self.model, products), "product")
        found = []
        for one, two in itertools.combinations([self.model.modalities.index(m) for m in met(self.model)], 2):
            both = mask[:, one] & mask[:, two]
            if both.sum() >= 2:
                scale = self.scale.exp().clamp(max=100)
                found.append(contrast_loss(vectors[both, one], vectors[both, two], scale, alike[both][:, both]))
        return {"cross": torch.stack(found).mean() if found else vectors.sum() * 0}


def met(model: FusedModel) -> list[str]:
    """The modalities of the model that this task brings together."""
    return [modality for modality in model.modalities if modality in QUERYABLE]


class CrossTask:
    """Batches of products with two modalities or more."""

    loss = "cross"

    def __init__(self, model: FusedModel, preprocess: Path, products: FeatureTable, group: Group = ALONE):
        self.names = tuple(met(model))
        self.columns = [MODALITIES.index(modality) for modality in model.modalities]
        self.model, self.table, self.group = model, products, group
        enough = products.mask[:, [MODALITIES.index(m) for m in self.names]].sum(1) >= 2
        self.rows = np.flatnonzero(in_training(preprocess, "products", len(products.ids)) & enough)
        self.module: nn.Module = CrossModal(model)
        self.parts: Mapping[str, nn.Module] = {m: model.encoders[m] for m in self.names} | {
            f"{m}.projection": model.projections[m] for m in self.names
        }
        self.count = len(self.rows)

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        order = np.random.default_rng((seed, epoch, 4)).permutation(self.rows)
        for step in range(start, self.steps(size)):
            rows = order[step * size : (step + 1) * size]
            yield product_side(self, rows, noise(rows, seed, epoch, step)), torch.from_numpy(self._alike(rows))

    def _alike(self, rows: np.ndarray) -> np.ndarray:
        texts = [self.table.tokens[self.table.offsets[row] : self.table.offsets[row + 1]].tobytes() for row in rows]
        known: dict[bytes, int] = {}
        numbers = np.array([known.setdefault(text, len(known)) for text in texts])
        return (numbers[:, None] == numbers) & np.array([bool(text) for text in texts])

    def steps(self, size: int) -> int:
        return max(1, self.count // size)


def product_side(task: CrossTask, rows: np.ndarray, keys: Tensor) -> Side:
    """Products with what the task brings together, their pictures seen another way each time."""
    side = gather(task.table, rows, task.model.modalities, task.columns, task.group, keys)
    side.inputs = {m: held for m, held in side.inputs.items() if m in task.names}
    if "image" in side.inputs:
        inputs = side.inputs["image"][1]
        inputs["pixels"] = views(inputs["pixels"], side.own_keys("image"))  # type: ignore[arg-type]
    return side
