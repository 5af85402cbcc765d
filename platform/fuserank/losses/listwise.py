"""Listwise losses over each query's candidates (ListNet's top-one form, Cao et al. 2007,
https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/)."""

import torch
from torch import Tensor


def listwise_loss(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between the softmax of the scores and the gains 2^grade − 1, normalised per query.

    Args:
        scores, grades: [B, K]; mask: [B, K] bool, True = a real candidate.

    Returns:
        The mean over queries that have a relevant candidate; 0 if none has.
    """
    return weighted_listwise_loss(scores, 2.0**grades - 1, mask)


def weighted_listwise_loss(scores: Tensor, gains: Tensor, mask: Tensor) -> Tensor:
    """The same with gains ≥ 0 as given: of clicks, `click_gains`. Shapes and return value as there."""
    gains = torch.where(mask, gains, 0)
    useful = gains.sum(1) > 0
    if not useful.any():
        return scores.sum() * 0
    target = gains[useful] / gains[useful].sum(1, keepdim=True)
    logs = scores.float().masked_fill(~mask, float("-inf")).log_softmax(1)[useful]
    return -(target * torch.where(target > 0, logs, 0)).sum(1).mean()


def click_gains(clicked: Tensor, propensity: Tensor, cap: float = 10.0) -> Tensor:
    """Clicks weighed by how rarely their place is looked at: clicked · min(1 / propensity, cap), any shape.

    Joachims et al. 2017, Unbiased Learning-to-Rank with Biased Feedback, https://arxiv.org/abs/1608.04468, their
    weights clipped.

    Args:
        propensity: chance in (0, 1] that the place was looked at; any value where nothing was clicked.
    """
    return torch.where(clicked > 0, clicked * (1 / propensity.clamp(min=1e-6)).clamp(max=cap), 0)
