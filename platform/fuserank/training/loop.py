"""The one training loop: any objective, any batches, from any epoch on."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fuserank.losses.weighted import weighted_sum
from fuserank.training.encode import autocast


@dataclass
class Fit:
    """What training moves, all of it saved and restored together (training/state.py)."""

    module: nn.Module  # the objective; wrapped for data-parallel training it is the wrapper
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0  # epochs finished


def make_fit(module: nn.Module, groups: list[dict[str, Any]], steps: int, warmup: float, weight_decay: float) -> Fit:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) with linear warm-up and cosine decay.

    Args:
        groups: parameter groups with their learning rates.
        steps: of the whole run.
        warmup: share of the steps.
    """
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    rise = max(1, int(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    return Fit(module, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))


def run_epoch(
    fit: Fit,
    batches: Iterable[tuple],
    weights: Mapping[str, float],
    device: torch.device,
    precision: str = "auto",
    clip: float = 1.0,
    after_step: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """One pass over `batches`; each is the argument tuple of the module's forward, which returns losses by head.

    Returns:
        The mean of each loss and of their weighted sum (`loss`).

    Raises:
        FloatingPointError: the loss is no longer a number; the message names the step.
    """
    fit.module.train()
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for step, arguments in enumerate(batches):
        with autocast(device, precision):
            losses = fit.module(*arguments)
            total = weighted_sum(losses, weights)
        fit.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(fit.module.parameters(), clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the loss at step {step} of epoch {fit.epoch} is not a number; lower train.learning_rate."
            )
        fit.optimizer.step()
        fit.schedule.step()
        for name, loss in {**losses, "loss": total}.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + loss.detach()
            counts[name] = counts.get(name, 0) + 1
        if after_step is not None:
            after_step(step)
    fit.epoch += 1
    return {name: float(value) / counts[name] for name, value in sums.items()}
