"""The reranker: orders candidates by what every retriever and every modality says of them.

A small network over each candidate's features, on top of a linear score, learnt listwise
(ListNet: Cao et al. 2007, https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/).
B queries · K candidates · F features.
"""

import numpy as np
import torch
from torch import Tensor, nn


def feature_names(modalities: tuple[str, ...]) -> tuple[str, ...]:
    """What each of the F features is, in order."""
    return (
        "fused",
        "lexical",
        "lexical_share",
        *(f"{m}_score" for m in modalities),
        *(f"{m}_missing" for m in modalities),
    )


def candidate_features(fused: np.ndarray, lexical: np.ndarray, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One query's features.

    Args:
        fused: [K]; lexical: [K] BM25, 0 without a common word; scores: [K, M] of each modality alone (any value where
            missing); mask: [K, M].

    Returns:
        float32 [K, F], in the order of `feature_names`.
    """
    words = np.log1p(np.maximum(lexical, 0))
    share = lexical / max(float(lexical.max(initial=0)), 1e-6)  # 1 for the best worded candidate of this query
    known = np.where(mask, scores, 0)
    columns = [fused[:, None], words[:, None], share[:, None], known, ~mask]
    return np.concatenate(columns, 1, dtype=np.float32)


class Reranker(nn.Module):
    """[B, K, F] → [B, K]."""

    spread: Tensor
    center: Tensor

    def __init__(self, features: int, hidden: int = 16):
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.linear = nn.Linear(features, 1)
        self.network = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.network[2].weight)  # type: ignore[arg-type]
        with torch.no_grad():
            self.linear.weight[0, 0] = 1.0  # untrained, it keeps the order of the fused score

    def forward(self, features: Tensor) -> Tensor:
        scaled = (features - self.center) / self.spread
        return (self.linear(scaled) + self.network(scaled))[..., 0]
