"""Which parts of the model mixed precision is for."""

import contextlib
from typing import Any

import torch


def behind_encoders(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Float32 for everything behind the encoders, on a CPU; on a GPU the precision stays as it is.

    Fusion and heads are small and see other numbers of rows at every step. oneDNN compiles a bfloat16 kernel for each
    new shape, which takes longer than the float32 product itself (docs/EXPERIMENTS.md, 2026-11-26).
    """
    return torch.autocast("cpu", enabled=False) if device.type == "cpu" else contextlib.nullcontext()
