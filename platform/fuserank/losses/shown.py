"""What came of what was shown: the likelihood of clicks and of purchases, both over everything shown (ESMM, Ma et al.
2018, https://arxiv.org/abs/1804.07931)."""

import torch
from torch import Tensor

_LEAST = 1e-6  # that a probability stays below 1


def shown_loss(log_chance: Tensor, happened: Tensor) -> Tensor:
    """Mean negative log likelihood of each head, [H].

    Args:
        log_chance: [B, H], logarithms of probabilities. happened: [B, H], 1 or 0.
    """
    missed = torch.log(-torch.expm1(log_chance.clamp(max=-_LEAST)))
    return -(happened * log_chance + (1 - happened) * missed).mean(0)
