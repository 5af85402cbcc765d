"""Concatenation: all modality vectors side by side through one hidden layer (early-late fusion)."""

from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.models.fusion.base import Missing, SingleVectorFusion


class ConcatFusion(SingleVectorFusion):
    """normalize(MLP([v_1; …; v_M]))."""

    def __init__(self, modalities: int, width: int):
        super().__init__(width)
        self.missing = Missing(modalities, width)
        self.mix = nn.Sequential(nn.Linear(modalities * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.mix(self.missing(vectors, mask).flatten(1)), dim=-1)
