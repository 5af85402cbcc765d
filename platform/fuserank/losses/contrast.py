"""Contrast of two views of the same rows (InfoNCE, both directions).

SimCLR: Chen et al. 2020, https://arxiv.org/abs/2002.05709; CLIP: Radford et al. 2021, https://arxiv.org/abs/2103.00020.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrast_loss(
    left: Tensor, right: Tensor, scale: Tensor | float, same: Tensor | None = None, further: Tensor | None = None
) -> Tensor:
    """Row i of `left` and row i of `right` belong together, all other pairs do not.

    Args:
        left, right: [B, D] unit vectors.
        scale: 1 / temperature.
        same: [B, B + K] bool, pairs that may be equal in truth and so are no negatives (the diagonal is ignored).
        further: [K, D] hard negatives of the rows of `left`.
    """
    count = len(left)
    against = right if further is None else torch.cat([right, further])
    logits = (left @ against.T).float() * scale
    if same is not None:
        own = torch.eye(count, len(against), dtype=torch.bool, device=left.device)
        logits = logits.masked_fill(same & ~own, float("-inf"))
    target = torch.arange(count, device=left.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :count].T, target)) / 2


def two_view_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent over 2B views: each view's positive is the other view of its row, the other 2B − 2 are negatives."""
    views = torch.cat([first, second]).float()
    logits = views @ views.T / temperature
    logits.fill_diagonal_(float("-inf"))
    count = len(first)
    target = torch.cat([torch.arange(count, 2 * count), torch.arange(count)]).to(views.device)
    return F.cross_entropy(logits, target)
