"""Validation while training: nDCG@10 of the fused score on validation queries, full catalogue of their split."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuserank.evaluation.metrics import rank_metrics
from fuserank.models.fused import FusedModel
from fuserank.training.data import Inputs, Judgments
from fuserank.training.encode import encode_table
from fuserank.training.group import ALONE, Group


@dataclass
class Validation:
    """Rows of the validation split and its judgments."""

    products: Inputs
    queries: Inputs
    judgments: Judgments
    product_rows: np.ndarray
    query_rows: np.ndarray
    columns: list[int]

    def score(
        self,
        model: FusedModel,
        device: torch.device,
        catalogue: tuple[Tensor, Tensor] | None = None,
        group: Group = ALONE,
    ) -> dict[str, float]:
        """nDCG@10 of the fused score and of each modality alone; empty where nothing relevant could be found.

        Args:
            catalogue: vectors and mask of all N products, where they are at hand already; else they are encoded.
            group: the workers that share the encoding; all of them call this and get the same.
        """
        if not len(self.query_rows):
            return {}
        if catalogue is None:
            vectors, mask = encode_table(
                model, self.products, self.product_rows, self.columns, "product", device, group=group
            )
        else:
            rows = torch.from_numpy(self.product_rows)
            vectors, mask = catalogue[0][rows], catalogue[1][rows]
        asked, asked_mask = encode_table(
            model, self.queries, self.query_rows, self.columns, "query", device, group=group
        )
        grades = self.judgments.matrix(self.query_rows, self.product_rows)
        place = next(model.parameters()).device
        asked, asked_mask, vectors, mask = (t.to(place) for t in (asked, asked_mask, vectors, mask))
        training = model.training
        model.eval()
        with torch.no_grad():
            fused = model.query_vectors(asked, asked_mask) @ model.product_vectors(vectors, mask).T
            alone = model.modality_scores(asked, asked_mask, vectors, mask)
        model.train(training)
        if not (grades > 0).any():
            return {}
        found = {"ndcg@10": _ndcg(fused, grades)}
        for column, modality in enumerate(model.modalities):
            found[f"{modality}_ndcg@10"] = _ndcg(alone[..., column].nan_to_num(neginf=-1e9), grades)
        return found


def _ndcg(scores: Tensor, grades: np.ndarray) -> float:
    return float(np.nanmean(rank_metrics(scores.float().cpu().numpy(), grades)["ndcg@10"]))
