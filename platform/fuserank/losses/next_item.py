"""Next-item prediction: a softmax over the catalogue at every event of a history (full softmax SASRec; Klenitskiy &
Vasilev 2023, https://arxiv.org/abs/2309.07602, show that this loss, not the architecture, is what ranks best)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def next_item_loss(users: Tensor, products: Tensor, targets: Tensor, mask: Tensor, scale: Tensor | float) -> Tensor:
    """
    Args:
        users: [B, T, E] user vectors after each event.
        products: [N, E] fused vectors of the catalogue (or of a sample that holds all targets).
        targets: [B, T] row of the next event's product.
        mask: [B, T] bool, positions with a next event.
        scale: 1 / temperature.

    Returns:
        A scalar, 0 if there is no position.
    """
    chosen = users[mask]
    if not len(chosen):
        return users.sum() * 0
    return F.cross_entropy((chosen @ products.T).float() * scale, targets[mask].to(torch.int64))
