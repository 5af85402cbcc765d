"""The fused model: encoders → one vector a modality → one vector a product, and the same for a query.

B batch · K candidates · M modalities · D width of a modality vector · E of a fused vector · H of an encoder's output.
"""

import contextlib
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuserank.models.fusion import build_fusion
from fuserank.models.fusion.base import almost_nothing
from fuserank.models.precision import behind_encoders
from fuserank.models.recommender import Recommender

QUERYABLE = ("text", "image", "audio")  # what a user can ask with
SMALL = ("price", "attributes")  # encoders of a layer or two


class FusedModel(nn.Module):
    """Scores products for queries by every modality alone and by all of them fused."""

    trust: Tensor

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        width: int,
        kind: str,
        description: Mapping[str, Any],
        recommender: Mapping[str, Any] | None = None,
        projection_layers: int = 1,
    ):
        """
        Args:
            encoders: modality → module with a `width`, in the order of MODALITIES.
            width: D.
            kind: the fusion's name.
            description: what checkpoint.py needs to build the same model again (JSON values).
            recommender: the recommender's numbers, None for no recommender.
            projection_layers: of what maps an encoder's output to D.
        """
        super().__init__()
        self.modalities = tuple(encoders)
        self.calibrated: set[str] = set()  # modalities whose projection brought its statistics along
        self.width = width
        self.description = dict(description)
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict(
            {m: _projection(e.width, width, projection_layers) for m, e in encoders.items()}  # type: ignore[arg-type]
        )
        self.heads = nn.ModuleDict({m: almost_nothing(nn.Linear(width, width)) for m in self.modalities})
        self.query_attention = nn.Linear(width, 1, bias=False)  # a softmax follows: a bias would change nothing
        self.query_kind = nn.Parameter(torch.zeros(len(self.modalities)))
        self.register_buffer("trust", torch.ones(len(self.modalities)))  # of products' modalities (training/trust.py)
        self.fusion = build_fusion(kind, len(self.modalities), width)
        self.out_width: int = self.fusion.out_width
        self.recommender = Recommender(self.out_width, **recommender) if recommender is not None else None

    def train(self, mode: bool = True) -> "FusedModel":
        """Training mode; an encoder without a trainable weight stays in evaluation mode, so that neither its dropout
        nor its running statistics move what is frozen."""
        super().train(mode)
        for encoder in self.encoders.values():
            if not any(p.requires_grad for p in encoder.parameters()):
                encoder.eval()
        return self

    def hidden(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encoder output [B, H]; inputs that already are one (`{"hidden": …}`, from a cache) pass through."""
        if "hidden" in inputs:
            return inputs["hidden"]
        with behind_encoders(self.query_kind.device) if modality in SMALL else contextlib.nullcontext():
            return self.encoders[modality](*inputs.values())

    def project(self, modality: str, hidden: Tensor) -> Tensor:
        """[B, H] → [B, D] unit vectors: what a modality says, the same of a product and in a query."""
        with behind_encoders(hidden.device):
            return F.normalize(self.projections[modality](hidden).float(), dim=-1)

    def encode(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Collated inputs of one modality (features/batch.py) → [B, D] unit vectors."""
        return self.project(modality, self.hidden(modality, inputs))

    def product_vectors(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """[B, M, D], [B, M] → [B, E]."""
        return self.fusion.product(vectors * self.trust[:, None], mask)

    def query_vector(self, vectors: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
        """The query as one unit vector [B, D]: its modalities weighed by a learned gate.

        Args:
            weights: [B, M] the caller's weights; they multiply the gate (1 changes nothing, 0 leaves a modality out).
        """
        known = torch.where(mask[..., None], vectors, 0)
        logits = self.query_attention(known)[..., 0] + self.query_kind
        if weights is not None:
            logits = logits + weights.clamp(min=1e-9).log()
            mask = mask & (weights > 0)
        gate = logits.masked_fill(~mask, float("-inf")).softmax(-1)
        gate = torch.where(mask, gate, 0)  # also where nothing is present and the softmax is undefined
        return F.normalize((gate[..., None] * known).sum(1), dim=-1)

    def query_heads(self, query: Tensor) -> Tensor:
        """[B, D] → [B, M, D]: the query's unit vector for each modality of a product."""
        return torch.stack([F.normalize(query + head(query), dim=-1) for head in self.heads.values()], 1)

    def query_vectors(self, vectors: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
        """[B, M, D], [B, M] → [B, E]; a product's score is the dot product with its fused vector."""
        return self.search_vectors(vectors, mask, weights)[0]

    def search_vectors(self, vectors: Tensor, mask: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What retrieval needs of a query: its fused vector [B, E] and its vector for each modality [B, M, D]."""
        query = self.query_vector(vectors, mask, weights)
        heads = self.query_heads(query)
        return self.fusion.query(query, heads), heads

    def modality_scores(self, q_vectors: Tensor, q_mask: Tensor, p_vectors: Tensor, p_mask: Tensor) -> Tensor:
        """Scores of each modality alone: [B, M, D], [B, M], [K, M, D], [K, M] → [B, K, M]; -inf where missing."""
        heads = self.query_heads(self.query_vector(q_vectors, q_mask))
        scores = torch.einsum("bmd,kmd->bkm", heads, p_vectors)
        return scores.masked_fill(~p_mask, float("-inf"))

    @torch.no_grad()
    def contributions(
        self, q_vectors: Tensor, q_mask: Tensor, p_vectors: Tensor, p_mask: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Exact Shapley value of each present modality for each product's fused score.

        Shapley 1953; Lundberg & Lee 2017, https://arxiv.org/abs/1705.07874. The empty set is worth 0, so each row sums
        to the product's score; a missing modality contributes 0, and what the score holds for nothing present at all
        (a learned offset) is shared alike by the present ones.

        Args:
            q_vectors: [M, D], q_mask: [M]; p_vectors: [K, M, D], p_mask: [K, M]; weights: [M] or None.

        Returns:
            [K, M]
        """
        query = self.query_vectors(q_vectors[None], q_mask[None], None if weights is None else weights[None])[0]
        everyone = p_mask.any(0).nonzero()[:, 0].tolist()  # what none of them has adds nothing but passes
        modalities = len(everyone)
        worth: dict[tuple[int, ...], Tensor] = {}
        for size in range(modalities + 1):
            for members in itertools.combinations(everyone, size):
                kept = torch.zeros(len(self.modalities), dtype=torch.bool, device=p_mask.device)
                kept[list(members)] = True
                worth[members] = self.product_vectors(p_vectors, p_mask & kept) @ query
        shares = torch.zeros(p_mask.shape, dtype=torch.float32, device=p_mask.device)
        for m in everyone:
            for members in (s for s in worth if m not in s):
                rest = modalities - len(members) - 1
                chance = math.factorial(len(members)) * math.factorial(rest) / math.factorial(modalities)
                with_m = tuple(sorted((*members, m)))
                shares[:, m] += chance * (worth[with_m] - worth[members])
        present = p_mask.sum(1, keepdim=True).clamp(min=1)
        return shares + torch.where(p_mask, worth[()][:, None] / present, 0)


class Standardize(nn.Module):
    """(x − center) / spread with fixed statistics, measured once before training (training/calibrate.py).

    Outputs of fresh or self-supervised encoders share a large common part; this takes it out before training.
    Unlike batch normalisation a row's result never depends on its neighbours.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return (hidden - self.center) / self.spread


def _projection(incoming: int, width: int, layers: int) -> nn.Module:
    """Linear, as CLIP's (Radford et al. 2021, https://arxiv.org/abs/2103.00020), or with one hidden layer, which learnt
    a few hundred queries by heart instead of the words they are made of (docs/EXPERIMENTS.md)."""
    hidden = [nn.GELU(), nn.Linear(width, width)] if layers == 2 else []
    first = nn.Linear(incoming, width)
    nn.init.orthogonal_(first.weight)  # keeps the angles that the encoder was pre-trained for
    nn.init.zeros_(first.bias)
    return nn.Sequential(Standardize(incoming), first, *hidden)
