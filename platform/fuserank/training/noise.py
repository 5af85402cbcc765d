"""Uniform draws that follow from a row's key and nothing else, so that a row is treated alike in any batch, on any
worker and after any restart.

Counter-based generation (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405): a draw is a hash of (key,
stream, place), with the integer mixer "lowbias32" (https://nullprogram.com/blog/2018/07/31/).
"""

import torch
from torch import Tensor

_MASK = 0x7FFFFFFF


def _mix(x: Tensor) -> Tensor:
    """int32 → well-mixed int32, in place; products wrap around."""
    x.bitwise_xor_((x >> 16) & 0xFFFF)
    x.mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15) & 0x1FFFF)
    x.mul_(0x846CA68B - (1 << 32))
    return x.bitwise_xor_((x >> 16) & 0xFFFF)


def keys(rows: Tensor, *of: int) -> Tensor:
    """int32 [B]: the key of each row in a context, such as (seed, epoch, step).

    Args:
        rows: int64 [B]. of: any integers.
    """
    found = _mix((rows & _MASK).to(torch.int32))
    for number in of:
        found = _mix(found ^ _mix(torch.tensor([number & _MASK], dtype=torch.int32, device=rows.device)))
    return found


def bits(keys: Tensor, stream: int, count: int) -> Tensor:
    """int32 [B, count] of random bits; another stream is another, independent set of them."""
    start = _mix(keys ^ _mix(torch.tensor([stream], dtype=torch.int32, device=keys.device)))
    place = _mix(torch.arange(count, dtype=torch.int32, device=keys.device) + 0x3C6EF372)
    return _mix(start[:, None] ^ place)


def uniform(keys: Tensor, stream: int, count: int) -> Tensor:
    """float32 [B, count] in [0, 1)."""
    return (bits(keys, stream, count) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def kept(keys: Tensor, stream: int, shape: torch.Size, chance: float) -> Tensor:
    """bool [B, …]: each element stays with 1 − `chance`, in steps of 2⁻¹⁶.

    Args:
        shape: of a tensor whose first dimension belongs to the rows: B, or a multiple of it (windows of pictures).
    """
    per_row = shape.numel() // len(keys)
    halves = bits(keys, stream, -(-per_row // 2)).view(torch.int16)[:, :per_row]  # two draws a hash
    return (halves >= round(chance * 65536) - 32768).reshape(shape)
