"""Masked language modelling (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): 15 % of the tokens are predicted;
of these 80 % are replaced by [MASK], 10 % by a random token, 10 % stay."""

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_tokens(
    input_ids: Tensor, special: Tensor, mask_id: int, vocabulary: int, draws: Tensor, share: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Corrupt a batch.

    Args:
        input_ids: [B, T]; special: [B, T] bool, tokens never chosen (padding, [CLS], [SEP]).
        draws: [3, B, T] uniform in [0, 1): whether a token is chosen, how it is replaced, and by which.

    Returns:
        ([B, T] corrupted ids, [B, T] bool chosen positions)
    """
    chosen = (draws[0] < share) & ~special
    random = (draws[2] * vocabulary).to(input_ids.dtype)
    corrupted = torch.where(chosen & (draws[1] < 0.8), mask_id, input_ids)
    return torch.where(chosen & (draws[1] >= 0.9), random, corrupted), chosen


def masked_language_loss(logits: Tensor, targets: Tensor, count: int | None = None) -> Tensor:
    """Cross-entropy of the chosen tokens: [C, V] logits, [C] true ids; 0 if none was chosen.

    Args:
        count: what to divide the sum by, in place of C.
    """
    if not len(targets):
        return logits.float().sum() * 0
    return F.cross_entropy(logits.float(), targets, reduction="sum") / (count or len(targets))
