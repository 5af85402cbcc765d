"""Listwise loss over each query's candidates (ListNet's top-one form, Cao et al. 2007,
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
    gains = torch.where(mask, 2.0**grades - 1, 0)
    useful = gains.sum(1) > 0
    if not useful.any():
        return scores.sum() * 0
    target = gains[useful] / gains[useful].sum(1, keepdim=True)
    logs = scores.float().masked_fill(~mask, float("-inf")).log_softmax(1)[useful]
    return -(target * torch.where(target > 0, logs, 0)).sum(1).mean()
