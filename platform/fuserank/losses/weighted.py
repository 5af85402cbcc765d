"""L = Σ weight · loss over the heads that have a weight; what the tuner searches."""

from collections.abc import Mapping

import torch
from torch import Tensor


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The scalar to minimise. Losses without a weight are an error, so that no head is silently forgotten.

    Raises:
        KeyError: a loss has no weight.
        ValueError: no loss has a weight above 0.
    """
    terms = [weights[name] * loss for name, loss in losses.items() if weights[name] > 0]
    if not terms:
        raise ValueError("no loss to sum: every head is switched off; give at least one loss weight above 0.")
    return torch.stack(terms).sum()
