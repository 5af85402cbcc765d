"""What each modality adds to the fused score: the same queries, with one modality of every product hidden.

Part of `fuserank evaluate`; reads the opened generation and questions. The model is not trained again, as a shop's
would not be if its pictures were lost tomorrow. Q queries · N products · R ranks.
"""

import numpy as np
import torch

from fuserank.config import Evaluate
from fuserank.evaluation.metrics import rank_rows
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import compare, measure
from fuserank.models.fused import FusedModel
from fuserank.retrieval.catalogue import Catalogue
from workloads.ranking import Questions

FUSED = "fused"


def ablated_orders(model: FusedModel, catalogue: Catalogue, questions: Questions) -> dict[str, np.ndarray]:
    """ "fused without ‹modality›" → int64 [Q, N] rows; a product that has nothing else is not retrieved (−1)."""
    known = torch.from_numpy(np.asarray(catalogue.modality_vectors, np.float32))
    found = {}
    for column, modality in enumerate(model.modalities):
        mask = catalogue.mask.copy()
        mask[:, column] = False
        if not catalogue.mask[:, column].any() or not mask.any():
            continue
        with torch.inference_mode():
            vectors = model.product_vectors(known, torch.from_numpy(mask)).float().numpy()
        scores = questions.vectors @ vectors.T
        found[f"{FUSED} without {modality}"] = rank_rows(np.where(mask.any(axis=1), scores, -np.inf))
    return found


def ablation(orders: dict[str, np.ndarray], grades: np.ndarray, settings: Evaluate, seed: int) -> dict:
    """Each ablated ranking's figures and its paired difference from the whole, as systems.compare has them.

    Args:
        orders: "fused" and the ablated ones, [Q, N]; grades: [Q, N].
    """
    values = measure(orders, grades, settings.k, settings.recall_k, settings.relevant)
    every = {ALL: np.ones(len(grades), dtype=bool)}
    pairs = [(name, FUSED) for name in orders if name != FUSED]
    return compare(values, every, pairs, settings.bootstrap, seed)[ALL]
