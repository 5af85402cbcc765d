"""Attention: a learned query token weighs the present modalities, head by head.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, with one query as in Set Transformer's pooling
(Lee et al. 2019, https://arxiv.org/abs/1810.00825).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.models.fusion.base import SingleVectorFusion, almost_nothing


class AttentionFusion(SingleVectorFusion):
    """normalize(Σ_m a_m · V v_m), a = softmax over the present modalities."""

    def __init__(self, modalities: int, width: int, heads: int = 4):
        super().__init__(width)
        self.heads = heads
        self.kind = nn.Parameter(torch.randn(modalities, width) * 0.02)
        self.token = nn.Parameter(torch.randn(heads, width // heads) * 0.02)
        self.key = nn.Linear(width, width, bias=False)  # a bias would add the same to every modality's logit
        self.value = nn.Linear(width, width)
        nn.init.eye_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        self.out = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        almost_nothing(self.out[3])

    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        batch, modalities, width = vectors.shape
        known = torch.where(mask[..., None], vectors, 0) + self.kind
        shape = (batch, modalities, self.heads, width // self.heads)
        keys, values = self.key(known).view(shape), self.value(known).view(shape)
        logits = torch.einsum("bmhd,hd->bmh", keys, self.token) / shape[-1] ** 0.5
        weights = logits.masked_fill(~mask[..., None], float("-inf")).softmax(1)
        weights = torch.where(mask.any(1)[:, None, None], weights, 0)  # nothing present: no weight, not NaN
        pooled = torch.einsum("bmh,bmhd->bhd", weights, values).reshape(batch, width)
        return F.normalize(pooled + self.out(pooled), dim=-1)
