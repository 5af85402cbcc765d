"""Two-view contrast over the training products' pictures (SimCLR, Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.features.table import FeatureTable
from fuserank.losses.contrast import two_view_loss
from fuserank.models.encoders.image import ImageEncoder
from fuserank.training.augment import views
from fuserank.training.dropout import SeededDropout
from fuserank.training.group import ALONE, Group
from fuserank.training.pretraining.task import noise, training_rows

SMALLEST, LIGHT = 0.5, 0.4  # of the views: SimCLR's are as strong; the hue stays


class TwoViews(nn.Module):
    """Image encoder and projection."""

    def __init__(self, encoder: ImageEncoder, group: Group = ALONE, temperature: float = 0.2, width: int = 128):
        super().__init__()
        self.encoder, self.group, self.temperature = encoder, group, temperature
        self.projection = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.ReLU(), nn.Linear(encoder.width, width)
        )

    def forward(self, pixels: Tensor, keys: Tensor, count: int) -> dict[str, Tensor]:
        """[b, 3, H, W] uint8 and [b] keys of this worker's pictures, of `count` in all."""
        both = torch.cat([views(pixels, keys, SMALLEST, LIGHT, stream) for stream in (0, 1)])
        with SeededDropout(torch.cat([keys, ~keys])):
            told = self.projection(self.encoder(both))
        one, two = (self.group.collect(half, count) for half in F.normalize(told.float(), dim=-1).chunk(2))
        return {"two_views": two_view_loss(one, two, self.temperature)}


class ImageTask:
    """Batches of pictures."""

    loss = "two_views"

    def __init__(self, encoder: ImageEncoder, preprocess: Path, products: FeatureTable, group: Group = ALONE):
        self.table, self.rows = products, training_rows(preprocess, "products", products, "image")
        self.module: nn.Module = TwoViews(encoder, group)
        self.parts: Mapping[str, nn.Module] = {"image": encoder}
        self.count, self.group = len(self.rows), group

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        order = np.random.default_rng((seed, epoch, 2)).permutation(self.rows)
        for step in range(start, self.steps(size)):
            rows = order[step * size : (step + 1) * size]
            mine = rows[self.group.share(len(rows))]
            yield self.table.batch(mine, "image")["pixels"], noise(mine, seed, epoch, step), len(rows)

    def steps(self, size: int) -> int:
        return max(1, self.count // size)  # a last, shorter batch would have fewer negatives
