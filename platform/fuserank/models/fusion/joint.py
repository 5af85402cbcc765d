"""Joint: one transformer over all modalities' tokens, trained together with the encoders (single-stream fusion).

After VisualBERT (Li et al. 2019, https://arxiv.org/abs/1908.03557).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.models.fusion.base import SingleVectorFusion, almost_nothing, mean_of


class JointFusion(SingleVectorFusion):
    """normalize(mean of the present v_m + W · first token of Transformer([fuse; v_1; …; v_M])), missing tokens masked
    out of the attention."""

    def __init__(self, modalities: int, width: int, layers: int = 2, heads: int = 4):
        super().__init__(width)
        self.kind = nn.Parameter(torch.randn(modalities + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.out = almost_nothing(nn.Linear(width, width))

    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        known = torch.where(mask[..., None], vectors, 0)
        scaled = known * vectors.shape[-1] ** 0.5  # unit vectors → unit variance
        tokens = F.pad(scaled, (0, 0, 1, 0)) + self.kind
        hidden = F.pad(~mask, (1, 0))  # the fuse token is always there
        out = self.layers(tokens, src_key_padding_mask=hidden)[:, 0]
        return F.normalize(mean_of(known, mask) + self.out(self.norm(out)), dim=-1)
