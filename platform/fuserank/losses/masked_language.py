"""Masked language modelling (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): 15 % of the tokens are predicted;
of these 80 % are replaced by [MASK], 10 % by a random token, 10 % stay."""

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_tokens(
    input_ids: Tensor, special: Tensor, mask_id: int, vocabulary: int, generator: torch.Generator, share: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Corrupt a batch.

    Args:
        input_ids: [B, T]; special: [B, T] bool, tokens never chosen (padding, [CLS], [SEP]).

    Returns:
        ([B, T] corrupted ids, [B, T] bool chosen positions)
    """
    device = input_ids.device

    def draw() -> Tensor:
        return torch.rand(input_ids.shape, generator=generator).to(device)

    chosen = (draw() < share) & ~special
    how = draw()
    random = torch.randint(vocabulary, input_ids.shape, generator=generator).to(device)
    corrupted = torch.where(chosen & (how < 0.8), mask_id, input_ids)
    return torch.where(chosen & (how >= 0.9), random, corrupted), chosen


def masked_language_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the chosen tokens: [C, V] logits, [C] true ids; 0 if none was chosen."""
    return F.cross_entropy(logits.float(), targets) if len(targets) else logits.float().sum() * 0
