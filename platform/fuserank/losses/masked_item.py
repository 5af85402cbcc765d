"""Masked items of a history (the Cloze task of BERT4Rec, Sun et al. 2019, https://arxiv.org/abs/1904.06690): a fifth of
the events lose their product, which is told from the events before and after by a softmax over the catalogue."""

import torch
from torch import Tensor

from fuserank.losses.next_item import next_item_loss


def mask_items(mask: Tensor, draws: Tensor, share: float = 0.2) -> Tensor:
    """[B, T] bool: events whose product is hidden, at least one of each history that has two or more.

    Args:
        mask: [B, T] bool, real events; draws: [B, T] uniform in [0, 1).
    """
    drawn = torch.where(mask, draws, 2.0)
    least = drawn == drawn.amin(1, keepdim=True)
    return mask & ((drawn < share) | least) & (mask.sum(1, keepdim=True) >= 2)


def masked_item_loss(
    told: Tensor, products: Tensor, rows: Tensor, hidden: Tensor, scale: Tensor | float = 1.0
) -> Tensor:
    """
    Args:
        told: [B, T, W] vectors at each event; products: [N, W] catalogue.
        rows: [B, T] row of each event's product; hidden: [B, T] bool.
        scale: 1 / temperature.

    Returns:
        A scalar, 0 if nothing is hidden.
    """
    return next_item_loss(told, products, rows, hidden, scale)
