"""All supervised losses of one step, as one module, so that data-parallel training sees one forward pass.

Encoders and the recommender work on this worker's share of the batch, all else on the whole of it (training/group.py).

L = w_text·L_text + w_image·L_image + … + w_recommend·L_recommend + w_fused·L_fused + w_align·L_align.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fuserank import config
from fuserank.losses.contrast import contrast_loss
from fuserank.losses.next_item import next_item_loss
from fuserank.losses.ranking import ranking_loss
from fuserank.models.adapt import Adaptation
from fuserank.models.fused import QUERYABLE, FusedModel
from fuserank.models.precision import behind_encoders
from fuserank.training.data import Batch
from fuserank.training.dropout import SeededDropout
from fuserank.training.encode import hidden_of, place
from fuserank.training.group import ALONE, Group


class Objective(nn.Module):
    """Batch → losses by head. The heads' temperatures live here and are left behind at export."""

    def __init__(
        self,
        model: FusedModel,
        weights: dict[str, float],
        loss: config.Loss,
        modality_dropout: float,
        adaptations: Sequence[Adaptation] = (),
        group: Group = ALONE,
        parts: int = 1,
        mined: bool = False,
    ):
        """weights: of the heads; parts: the encoders see a batch in so many parts (training/encode.py); mined: whether
        the bank holds hard negatives."""
        super().__init__()
        self.model, self.adaptations, self.group, self.parts = model, list(adaptations), group, parts
        self.mined = mined
        self.weights, self.unjudged = weights, loss.unjudged
        self.modality_dropout = modality_dropout
        heads = [*model.modalities, "fused", "align"]
        self.encoded: dict[str, Tensor] = {}
        start = -math.log(loss.temperature)
        self.scales = nn.ParameterDict(
            {h: nn.Parameter(torch.tensor(start), requires_grad=loss.learn_temperature) for h in heads}
        )

    def scale(self, head: str) -> Tensor:
        """1 / temperature, at most 100 (as in CLIP)."""
        return self.scales[head].exp().clamp(max=100)

    def forward(self, batch: Batch, table: Tensor, dropped: Tensor) -> dict[str, Tensor]:
        """
        Args:
            table: [N, E] fused vectors of the whole catalogue as of the last refresh, for the recommender.
            dropped: [P + K, M] uniform draws that decide which modalities this step hides (K rows of the bank).

        Afterwards `encoded` holds the encoder outputs of the batch's products, by modality.
        """
        hidden = hidden_of(self.model, batch.products, self.parts)
        asked = hidden_of(self.model, batch.queries, self.parts) if batch.grades.numel() else {}
        self.encoded = {m: h.detach() for m, h in hidden.items()}
        with behind_encoders(table.device):
            return self._losses(batch, hidden, asked, table, dropped)

    def _losses(
        self, batch: Batch, hidden: dict[str, Tensor], asked: dict[str, Tensor], table: Tensor, dropped: Tensor
    ) -> dict[str, Tensor]:
        """hidden, asked: encoder outputs of the products and of the queries, by modality."""
        model, losses = self.model, {}
        own, own_mask = place(model, batch.products, hidden, "product")
        vectors, mask = own, own_mask
        if batch.bank is not None:
            kept, kept_mask = place(model, batch.bank, hidden_of(model, batch.bank), "product")
            vectors, mask = torch.cat([own, kept]), torch.cat([own_mask, kept_mask])
        shown = mask & ((dropped >= self.modality_dropout) | (mask.sum(1, keepdim=True) == 1))
        lost = ~shown.any(1) & mask.any(1)  # never hide the last one
        shown = torch.where(lost[:, None], mask, shown)
        products = model.product_vectors(vectors, shown)
        if batch.grades.numel():
            losses |= self._ranking(batch, asked, vectors, mask, products)
        if self.weights["align"] > 0:
            losses["align"] = self._align(batch, vectors, mask, len(own))
        if model.recommender is not None and batch.history and self.weights["recommend"] > 0:
            losses["recommend"] = self._recommend(batch, products[: len(own)], table)
        for adaptation in self.adaptations:
            if losses and (apart := adaptation.orthogonality()) is not None:
                losses["orthogonal"] = losses.get("orthogonal", 0.0) + apart
        return losses or dict.fromkeys(self.weights, products.sum() * 0)  # nothing to learn from in this batch

    def _ranking(
        self, batch: Batch, asked: dict[str, Tensor], vectors: Tensor, mask: Tensor, products: Tensor
    ) -> dict[str, Tensor]:
        model, losses = self.model, {}
        query_vectors, query_mask = place(model, batch.queries, asked, "query")
        query = model.query_vector(query_vectors, query_mask)
        heads = model.query_heads(query)
        if self.weights["fused"] > 0:
            scores = model.fusion.query(query, heads) @ products.T
            losses["fused"] = self._ranked("fused", scores, batch.grades)
        for column, modality in enumerate(model.modalities):
            if self.weights[modality] > 0 and mask[:, column].any():
                scores = heads[:, column] @ vectors[:, column].T
                valid = mask[:, column].expand(len(scores), -1)
                losses[modality] = self._ranked(modality, scores, batch.grades, valid)
        return losses

    def _ranked(self, head: str, scores: Tensor, grades: Tensor, valid: Tensor | None = None) -> Tensor:
        scale = self.scale(head)
        margin = None if self.unjudged is None else self.unjudged * scale.detach()
        return ranking_loss(scores * scale, grades, valid, margin)

    def _align(self, batch: Batch, vectors: Tensor, mask: Tensor, own: int) -> Tensor:
        """Each modality of a product, asked as a query, finds the product by its other modalities; products of the
        bank are further negatives where some of them are mined."""
        model, grades = self.model, batch.grades
        if not self.mined:
            vectors, mask, grades = vectors[:own], mask[:own], grades[:, :own]
        top = (grades > 0) & (grades == grades[:, :own].amax(1, keepdim=True))
        alike = (top[:, :own].float().T @ top.float()) > 0  # best answers to one query may be equal: no negatives
        found = []
        for column, modality in enumerate(model.modalities):
            if modality not in QUERYABLE:
                continue
            others = mask.clone()
            others[:, column] = False
            there = others.any(1)
            both = (mask[:, column] & there)[:own]
            if both.sum() < 2:
                continue
            there[:own] = False
            query = vectors[:own][both, column]
            left = model.fusion.query(query, model.query_heads(query))
            right = model.product_vectors(vectors[:own][both], others[:own][both])
            further = model.product_vectors(vectors[there], others[there]) if there.any() else None
            same = torch.cat([alike[both][:, :own][:, both], alike[both][:, there]], 1)
            found.append(contrast_loss(left, right, self.scale("align"), same, further))
        return torch.stack(found).mean() if found else vectors.sum() * 0

    def _recommend(self, batch: Batch, products: Tensor, table: Tensor) -> Tensor:
        recommender = self.model.recommender
        assert recommender is not None
        live = table.index_copy(0, batch.rows, products.to(table.dtype))  # this batch's products carry gradients
        known = recommender.table(live)
        rows, mask = batch.history["rows"], batch.history["mask"]
        own = torch.from_numpy(self.group.share(len(rows))).to(rows.device)
        items = known[rows[own, :-1].clamp(min=0)]
        with SeededDropout(batch.history["keys"][own]):
            mine = recommender(items, batch.history["types"][own, :-1], batch.history["gaps"][own, :-1], mask[own, :-1])
        users = self.group.collect(mine, len(rows))
        return next_item_loss(users, known, rows[:, 1:], mask[:, 1:])
