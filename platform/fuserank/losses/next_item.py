"""Next-item prediction: a softmax over the catalogue at every event of a history (full softmax SASRec; Klenitskiy &
Vasilev 2023, https://arxiv.org/abs/2309.07602, show that this loss, not the architecture, is what ranks best).

Over a sample of the catalogue each score loses the logarithm of the product's chance to be in the sample, so that it
estimates the full softmax (Bengio & Senécal 2008, https://doi.org/10.1109/TNN.2007.912312; Yi et al. 2019,
https://doi.org/10.1145/3298689.3346996).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def next_item_loss(
    users: Tensor,
    products: Tensor,
    targets: Tensor,
    mask: Tensor,
    scale: Tensor | float = 1.0,
    log_chance: Tensor | None = None,
) -> Tensor:
    """
    Args:
        users: [B, T, W] user vectors after each event.
        products: [N, W] the catalogue (or a sample that holds all targets).
        targets: [B, T] row of the next event's product.
        mask: [B, T] bool, positions with a next event.
        scale: 1 / temperature.
        log_chance: [N] of each product to be in the sample; None for the whole catalogue.

    Returns:
        A scalar, 0 if there is no position.
    """
    chosen = users[mask]
    if not len(chosen):
        return users.sum() * 0
    scores = (chosen @ products.T).float() * scale
    if log_chance is not None:
        scores = scores - log_chance
    return F.cross_entropy(scores, targets[mask].to(torch.int64))


def log_inclusion(share: Tensor, drawn: int, sampled: int, products: int) -> Tensor:
    """Log of each product's chance to be a candidate: among `drawn` targets of a batch, or `sampled` uniform draws.

    Args:
        share: [N] of all targets that are this product.
    """
    missed = drawn * torch.log1p(-share.clamp(max=0.999)) + sampled * torch.log1p(torch.tensor(-1 / max(products, 2)))
    return torch.log(-torch.expm1(missed.clamp(max=-1e-9)))
