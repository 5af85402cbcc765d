"""Gated: every modality scores the query, weighed by a gate per query and a gate per product, plus one slot that sees
all modalities together (what only holds in combination: cheap *for a lamp*).

After the gated multimodal unit (Arevalo et al. 2017, https://arxiv.org/abs/1702.01992), with the gate on both sides.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.models.fusion.base import Fusion, Missing, almost_nothing, mean_of
from fuserank.models.fusion.late import Expected, product_vector, query_vector


class GatedFusion(Fusion):
    """score = Σ_slots w_s(query) g_s(product) q_s·v_s + Σ_missing w_m(query) c_m(query); M modality slots + 1 joint."""

    def __init__(self, modalities: int, width: int):
        super().__init__()
        slots = modalities + 1
        self.out_width = slots * width + modalities
        self.missing = Missing(modalities, width)
        self.together = nn.Sequential(nn.Linear(modalities * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        almost_nothing(self.together[2])
        self.together_query = almost_nothing(nn.Linear(width, width))
        self.product_gate = almost_nothing(nn.Linear(modalities * width, slots))
        self.query_gate = nn.Sequential(nn.Linear(width, width), nn.GELU(), almost_nothing(nn.Linear(width, slots)))
        self.expected = Expected(modalities, width)

    def product(self, vectors: Tensor, mask: Tensor) -> Tensor:
        whole = self.missing(vectors, mask).flatten(1)
        known = torch.where(mask[..., None], vectors, 0)
        joint = F.normalize(mean_of(known, mask) + self.together(whole), dim=-1)
        slots = torch.cat([known, joint[:, None]], 1)
        return product_vector(slots, 2 * self.product_gate(whole).sigmoid(), mask)

    def query(self, query: Tensor, heads: Tensor) -> Tensor:
        joint = F.normalize(query + self.together_query(query), dim=-1)
        slots = torch.cat([heads, joint[:, None]], 1)
        return query_vector(slots, self.query_gate(query).softmax(-1), self.expected(query))
