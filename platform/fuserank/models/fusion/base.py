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


class SingleVectorFusion(Fusion):
    """Fusions whose result is one unit vector of width D, met by a projection of the query."""

    def __init__(self, width: int):
        super().__init__()
        self.out_width = width
        self.to_query = nn.Linear(width, width)

    def query(self, query: Tensor, heads: Tensor) -> Tensor:
        return F.normalize(query + self.to_query(query), dim=-1)


class Missing(nn.Module):
    """Puts a learned vector into each masked slot, so that absence is information and not a zero vector."""

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(modalities, width) * 0.02)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[..., None], vectors, self.vectors.to(vectors.dtype))
