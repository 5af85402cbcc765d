"""Ensemble: each modality scores by itself; the scores are combined with learned weights, the same for every query."""

import torch
from torch import Tensor, nn

from fuserank.models.fusion.base import Fusion
from fuserank.models.fusion.late import Expected, product_vector, query_vector


class EnsembleFusion(Fusion):
    """score = Σ_m w_m [present_m q_m·v_m + missing_m c_m(query)], w = softmax of learned logits."""

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.out_width = modalities * width + modalities
        self.logits = nn.Parameter(torch.zeros(modalities))
        self.expected = Expected(modalities, width)

    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        known = torch.where(mask[..., None], vectors, 0)
        return product_vector(known, torch.ones_like(known[..., 0]), mask)

    def query(self, query: Tensor, heads: Tensor) -> Tensor:
        weights = self.logits.softmax(0).expand(len(query), -1)
        return query_vector(heads, weights.to(heads.dtype), self.expected(query))
