"""The reranker: the retriever's order, corrected by what everything known of query, candidate and user says together.

score = retriever's score + linear(features) + network(features, attention), features and score standardised by what
it was fitted on. The query attends over a candidate's fused vector and its modality vectors; the candidate attends
over the user's recent products (as in DIN, Zhou et al. 2018, https://arxiv.org/abs/1706.06978). Both added parts
begin at zero: an untrained reranker, which standardises nothing, keeps the retriever's scores exactly. What is masked
is never read.

B queries · K candidates · F features · M modalities · T recent products · D, E widths of modality and fused vectors ·
A width inside.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """What attention reads. What lies where a mask is false may be anything."""

    asked: Tensor  # [B, D], the query
    fused: Tensor  # [B, K, E], the candidates
    products: Tensor  # [B, K, M, D], their modalities
    present: Tensor  # bool [B, K, M]
    recent: Tensor  # [B, T, E], the user's recent products
    recent_mask: Tensor  # bool [B, T]

    def part(self, rows: Tensor) -> "Context":
        """Some of the queries."""
        return Context(*(getattr(self, part.name)[rows] for part in fields(self)))


class Reranker(nn.Module):
    """[B, K, F] and a Context → [B, K]."""

    spread: Tensor
    center: Tensor
    used: Tensor

    def __init__(self, features: int, modalities: int = 0, width: int = 0, fused_width: int = 0, inner: int = 16):
        """
        Args:
            features: F. modalities, width, fused_width: M, D and E; 0 for a reranker that reads features alone.
            inner: A, also of the hidden layer.
        """
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("used", torch.ones(features))  # 0: a feature that is not looked at
        self.linear = nn.Linear(features, 1)
        self.attends = width > 0
        if self.attends:
            self.asked = nn.Linear(width, inner)
            self.offered = nn.Linear(width, inner)
            self.kinds = nn.Parameter(torch.zeros(modalities, inner))
            self.whole = nn.Linear(fused_width, inner)
            self.past_key = nn.Linear(fused_width, inner)
            self.past_value = nn.Linear(fused_width, inner)
        seen = features + 2 * inner * self.attends
        self.network = nn.Sequential(nn.Linear(seen, inner), nn.Tanh(), nn.Linear(inner, 1, bias=False))
        for layer in (self.linear, self.network[2]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, context: Context | None = None) -> Tensor:
        scaled = (features - self.center) / self.spread
        known = seen = scaled * self.used
        if self.attends:
            if context is None:
                raise ValueError("this reranker attends: give it a context")
            seen = torch.cat([known, self._offer(context), self._taste(context)], -1)
        return scaled[..., 0] + (self.linear(known) + self.network(seen))[..., 0]

    def _offer(self, context: Context) -> Tensor:
        """What the query finds in each candidate: [B, K, A]."""
        known = torch.where(context.present[..., None], context.products, 0).float()
        tokens = torch.cat([self.whole(context.fused)[:, :, None], self.offered(known) + self.kinds], 2)  # [B,K,1+M,A]
        query = self.asked(context.asked)
        logits = torch.einsum("ba,bkma->bkm", query, tokens) / tokens.shape[-1] ** 0.5
        held = torch.cat([torch.ones_like(context.present[..., :1]), context.present], 2)
        weights = logits.masked_fill(~held, float("-inf")).softmax(-1)
        return torch.einsum("bkm,bkma->bka", weights, tokens) * query[:, None]

    def _taste(self, context: Context) -> Tensor:
        """What each candidate finds in the user's past, against itself: [B, K, A]; zeros without a past."""
        known = torch.where(context.recent_mask[..., None], context.recent, 0)
        candidate = self.whole(context.fused)
        logits = torch.einsum("bka,bta->bkt", candidate, self.past_key(known)) / candidate.shape[-1] ** 0.5
        weights = logits.masked_fill(~context.recent_mask[:, None], float("-inf")).softmax(-1)
        weights = torch.where(context.recent_mask[:, None], weights, 0)  # also where nothing is known at all
        return torch.einsum("bkt,bta->bka", weights, self.past_value(known)) * candidate
