"""The contract of every fusion, so that each is a drop-in for the others.

B batch · M modalities · D width of one modality's vector · E width of the fused vector.

A fusion turns a product's modality vectors into one vector [E] and a query into one vector [E]; their dot product is
the score, so that any of them can be searched by a vector index. What lies in a masked slot never reaches the output.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fusion(nn.Module, ABC):
    """Base class. `out_width` is E."""

    out_width: int

    @abstractmethod
    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """[B, M, D] unit vectors, [B, M] bool (True = present) → [B, E]."""

    @abstractmethod
    def query(self, query: Tensor, heads: Tensor) -> Tensor:
        """[B, D] the query as one vector, [B, M, D] its unit vector for each product modality → [B, E]."""


def almost_nothing(layer: nn.Module) -> nn.Linear:
    """A linear layer that adds next to nothing until it is trained, so that what it is added to begins as it was
    pre-trained (after Bachlechner et al. 2020, https://arxiv.org/abs/2003.04887; not 0, or no gradient would reach the
    layers before it)."""
    assert isinstance(layer, nn.Linear)
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)
    return layer


def mean_of(known: Tensor, mask: Tensor) -> Tensor:
    """[B, M, D], zeros where masked → [B, D], the mean of what is present."""
    return known.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class SingleVectorFusion(Fusion):
    """Fusions whose result is one unit vector of width D, met by a projection of the query."""

    def __init__(self, width: int):
        super().__init__()
        self.out_width = width
        self.to_query = almost_nothing(nn.Linear(width, width))

    def query(self, query: Tensor, heads: Tensor) -> Tensor:
        return F.normalize(query + self.to_query(query), dim=-1)


class Missing(nn.Module):
    """Puts a learned vector into each masked slot, so that absence is information and not a zero vector."""

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(modalities, width) * 0.02)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[..., None], vectors, self.vectors.to(vectors.dtype))
