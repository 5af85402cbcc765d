"""Measures each encoder's output once on training rows, so that its projections start from standardised inputs."""

import numpy as np
import torch

from fuserank.models.fused import FusedModel, Standardize
from fuserank.training.data import Inputs, RankingData
from fuserank.training.encode import encode_chunks

ROWS = 512  # enough for a mean and a spread of a few hundred dimensions
SMALLEST = 0.05  # share of the mean spread below which a dimension counts as constant


@torch.inference_mode()
def calibrate(model: FusedModel, data: RankingData, seed: int) -> None:
    """Set center and spread of every projection from up to ROWS training products and queries; those that were
    pre-trained (`model.calibrated`) keep theirs."""
    random = np.random.default_rng((seed, 3))
    sides = ((data.products, data.product_rows), (data.queries, data.query_rows))
    for modality, column in zip(data.modalities, data.columns, strict=True):
        if modality in model.calibrated:
            continue
        found = []
        for table, rows in sides:
            have = rows[table.mask[rows, column]]
            if len(have):
                chosen = np.sort(random.choice(have, min(ROWS, len(have)), replace=False))
                found.append(_hidden(model, table, chosen, modality, column))
        if sum(map(len, found)) > 1:
            _set(model.projections[modality], torch.cat(found))


def _set(projection: torch.nn.Module, hidden: torch.Tensor) -> None:
    for part in projection.modules():
        if isinstance(part, Standardize):
            spread = hidden.std(0)
            usual = float(spread.mean())
            part.center.copy_(hidden.mean(0))
            part.spread.copy_(spread.clamp(min=SMALLEST * usual if usual > 1e-6 else 1.0))  # all alike: as is


def _hidden(model: FusedModel, table: Inputs, rows: np.ndarray, modality: str, column: int) -> torch.Tensor:
    device = next(model.parameters()).device
    chunks = encode_chunks(model, table, rows, (modality,), [column], device)
    return torch.cat([hidden[modality].float() for _, _, hidden in chunks])
