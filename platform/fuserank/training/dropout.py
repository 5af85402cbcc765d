"""Dropout whose masks follow from each row's key (training/noise.py) instead of the process's random state.

Any model's dropout is met, because the two functions that all of them call are replaced for the length of a block: what
a row loses then depends neither on which worker encodes it, nor on its neighbours, nor on how often.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fuserank.training.noise import kept

_DROPOUT, _ATTENTION = F.dropout, F.scaled_dot_product_attention


class SeededDropout:
    """Within the block dropout draws from `keys` [B]; tensors whose first dimension is no multiple of B are left to
    torch. A new block with the same keys draws the same.

    A mode of torch (TorchFunctionMode) would not do: it does not see the dropout inside
    `torch.nn.functional.multi_head_attention_forward`, and slows every operation.
    """

    def __init__(self, keys: Tensor):
        self.keys, self.calls = keys, 0

    def __enter__(self) -> "SeededDropout":
        self.calls = 0
        F.dropout, F.scaled_dot_product_attention = self._dropout, self._attention
        return self

    def __exit__(self, *error: Any) -> None:
        F.dropout, F.scaled_dot_product_attention = _DROPOUT, _ATTENTION

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        if not input.shape or input.shape[0] % len(self.keys):
            return _DROPOUT(input, p, True)
        self.calls += 1
        mask = kept(self.keys, self.calls, input.shape, p)
        return input * mask.to(input.dtype).mul_(1 / (1 - round(p * 65536) / 65536))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        **_: Any,
    ) -> Tensor:
        """The definition written out where something is dropped, because the fused kernels draw their own mask."""
        if dropout_p == 0:
            return _ATTENTION(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
            )
        return self._dropout(scores.softmax(-1), dropout_p) @ value
