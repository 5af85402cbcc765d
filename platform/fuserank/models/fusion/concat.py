"""Concatenation: all modality vectors side by side through one hidden layer (early-late fusion)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.models.fusion.base import Missing, SingleVectorFusion, almost_nothing, mean_of


class ConcatFusion(SingleVectorFusion):
    """normalize(mean of the present v_m + MLP([v_1; …; v_M])), the MLP's part next to nothing at first."""

    def __init__(self, modalities: int, width: int):
        super().__init__(width)
        self.missing = Missing(modalities, width)
        self.mix = nn.Sequential(nn.Linear(modalities * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        almost_nothing(self.mix[2])

    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        known = torch.where(mask[..., None], vectors, 0)
        return F.normalize(mean_of(known, mask) + self.mix(self.missing(vectors, mask).flatten(1)), dim=-1)
