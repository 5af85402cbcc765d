"""Late interaction: the parts of a vector whose dot product is a weighted sum of per-modality scores.

    score = Σ_m w_m(query) · [ present_m · g_m(product) · q_m·v_m  +  missing_m · c_m(query) ]

c_m is the score the model expects of a modality it cannot see, so that a product without, say, a picture is neither
punished nor favoured for it. Query and product vectors hold the factors of each term side by side (E = S·D + M for S
scored slots), so the sum is one dot product and any vector index can search it.
"""

import torch
from torch import Tensor, nn


class Expected(nn.Module):
    """c_m(query): the expected score of each missing modality, [B, D] → [B, M]."""

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.linear = nn.Linear(width, modalities)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, 0.1)

    def forward(self, query: Tensor) -> Tensor:
        return self.linear(query)


def product_vector(slots: Tensor, scale: Tensor, mask: Tensor) -> Tensor:
    """Slots [B, S, D] scaled by [B, S], then one flag a missing modality: → [B, S·D + M]."""
    return torch.cat([(slots * scale[..., None]).flatten(1), (~mask).to(slots.dtype)], 1)


def query_vector(slots: Tensor, weights: Tensor, expected: Tensor) -> Tensor:
    """Heads [B, S, D] weighted by [B, S] (the first M of them belong to modalities) and c [B, M]: → [B, S·D + M]."""
    modalities = expected.shape[1]
    return torch.cat([(slots * weights[..., None]).flatten(1), expected * weights[:, :modalities]], 1)
