"""M_R: a causal transformer over the user's recent events on fused product vectors, after SASRec
(Kang & McAuley 2018, https://arxiv.org/abs/1808.09781) with event types and time gaps as further inputs.

B users · T events · E width of the fused product vectors. score(user, product) = user vector · fused product vector.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.records.schema import EVENT_TYPES

GAPS = (60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0)  # seconds that part the time-gap buckets


class Recommender(nn.Module):
    """[B, T] events → [B, T, E] unit user vectors, one after each event; position t sees events 0…t only."""

    boundaries: Tensor

    def __init__(self, item_width: int, width: int, events: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.events = events
        self.item = nn.Linear(item_width, width)
        self.event_type = nn.Embedding(len(EVENT_TYPES), width)
        self.gap = nn.Embedding(len(GAPS) + 1, width)
        self.place = nn.Embedding(events, width)  # counted from the oldest event shown
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, item_width))
        self.drop = nn.Dropout(dropout)
        self.register_buffer("boundaries", torch.tensor(GAPS), persistent=False)

    def forward(self, items: Tensor, types: Tensor, gaps: Tensor, mask: Tensor, causal: bool = True) -> Tensor:
        """
        Args:
            items: [B, T, E] fused vectors of the products, oldest first, right-padded.
            types: [B, T] int64 index into EVENT_TYPES.
            gaps: [B, T] seconds since the event before (0 for the first).
            mask: [B, T] bool, True = a real event.
            causal: False lets every position see all events (to tell hidden ones in pre-training).
        """
        length = items.shape[1]
        places = torch.arange(length, device=items.device)
        hidden = self.item(items) + self.event_type(types) + self.place(places)
        hidden = self.drop(hidden + self.gap(torch.bucketize(gaps.contiguous(), self.boundaries)))
        later = torch.ones(length, length, dtype=torch.bool, device=items.device).triu(1) if causal else None
        return F.normalize(self.out(self.layers(hidden, mask=later, src_key_padding_mask=~mask)), dim=-1)

    def user_vectors(self, items: Tensor, types: Tensor, gaps: Tensor, mask: Tensor) -> Tensor:
        """[B, E]: the user vector after the last real event; zeros where there is none."""
        out = self(items, types, gaps, mask)
        last = mask.sum(1).clamp(min=1) - 1
        vector = out[torch.arange(len(out), device=out.device), last]
        return torch.where(mask.any(1)[:, None], vector, 0)
