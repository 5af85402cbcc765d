"""Attributes → one vector: the mean of a product's value embeddings, and a small network over it.

A bag of embedded features, as in DeepSets: Zaheer et al. 2017, https://arxiv.org/abs/1703.06114.
"""

from torch import Tensor, nn


class AttributesEncoder(nn.Module):
    """[B, V] ids of known `name=value` pairs, 0 for none → [B, width]; neither order nor padding counts."""

    def __init__(self, vocabulary: int, hidden: int):
        """
        Args:
            vocabulary: number of known pairs; their ids begin at 1. hidden: width of everything.
        """
        super().__init__()
        self.width = hidden
        self.embedding = nn.Embedding(vocabulary + 1, hidden, padding_idx=0)
        self.network = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, attribute_ids: Tensor) -> Tensor:
        known = (attribute_ids > 0).sum(1, keepdim=True).clamp(min=1)
        mean = self.embedding(attribute_ids).sum(1) / known
        return mean + self.network(mean)
