"""The one training loop: any objective, any batches, from any epoch on."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fuserank.losses.weighted import weighted_sum
from fuserank.training.encode import autocast

Schedule = Literal["cosine", "linear", "constant"]


@dataclass
class Fit:
    """What training moves, all of it saved and restored together (training/state.py)."""

    module: nn.Module  # the objective; wrapped for data-parallel training it is the wrapper
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished of the epoch under way
    sums: dict[str, Tensor] = field(default_factory=dict)  # of each loss, in the epoch under way
    counts: dict[str, int] = field(default_factory=dict)
    scaler: torch.GradScaler | None = None  # for float16 alone
    sharded: nn.Module | None = None  # the part whose weights are spread over the workers (FSDP)


def make_fit(
    module: nn.Module,
    groups: list[dict[str, Any]],
    steps: int,
    warmup: float,
    weight_decay: float,
    schedule: Schedule = "cosine",
    scaler: torch.GradScaler | None = None,
) -> Fit:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) with linear warm-up, then cosine or linear
    decay to a fiftieth, or none.

    Args:
        groups: parameter groups with their learning rates.
        steps: of the whole run.
        warmup: share of the steps.
    """
    # BERT's epsilon: with a smaller one, weights whose gradient is mere rounding (biases of attention keys) wander.
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, eps=1e-6)
    rise = max(1, int(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        done = min(1.0, (step - rise) / max(1, steps - rise))
        falls = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
        return 0.02 + 0.98 * falls[schedule]

    return Fit(module, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor), scaler=scaler)


def run_epoch(
    fit: Fit,
    batches: Iterable[tuple],
    weights: Mapping[str, float],
    device: torch.device,
    precision: str = "auto",
    clip: float = 1.0,
    after_step: Callable[[], None] | None = None,
) -> dict[str, float]:
    """The rest of an epoch; a batch is the argument tuple of the module's forward, which returns losses by head.

    Args:
        batches: from step `fit.step` of the epoch on.
        after_step: called after each step, gradients still there.

    Returns:
        The mean of each loss and of their weighted sum (`loss`), over the whole epoch.

    Raises:
        FloatingPointError: the loss is no longer a number; the message names the step.
    """
    fit.module.train()
    for arguments in batches:
        with autocast(device, precision):
            losses = fit.module(*arguments)
            total = weighted_sum(losses, weights)
        _descend(fit, total, clip)
        fit.schedule.step()
        for name, loss in {**losses, "loss": total}.items():
            fit.sums[name] = fit.sums.get(name, torch.zeros((), device=device)) + loss.detach()
            fit.counts[name] = fit.counts.get(name, 0) + 1
        fit.step += 1
        if after_step is not None:
            after_step()
    means = {name: float(value) / fit.counts[name] for name, value in fit.sums.items()}
    fit.epoch, fit.step, fit.sums, fit.counts = fit.epoch + 1, 0, {}, {}
    return means


def _descend(fit: Fit, total: Tensor, clip: float) -> None:
    """One step of the optimiser."""
    fit.optimizer.zero_grad(set_to_none=True)
    if fit.scaler is None:
        total.backward()
    else:
        fit.scaler.scale(total).backward()
        fit.scaler.unscale_(fit.optimizer)
    if fit.sharded is not None:
        average_whole(fit)
    norm = clip_gradients(fit, clip)
    if not torch.isfinite(total if fit.scaler is not None else norm):  # a scaler skips steps that overflow
        raise FloatingPointError(
            f"the loss at step {fit.step} of epoch {fit.epoch} is not a number; lower train.learning_rate."
        )
    if fit.scaler is None:
        fit.optimizer.step()
    else:
        fit.scaler.step(fit.optimizer)
        fit.scaler.update()


def average_whole(fit: Fit) -> None:
    """Average the gradients of the weights that every worker holds whole, beside sharded ones."""
    assert fit.sharded is not None
    spread = {id(p) for p in fit.sharded.parameters()}
    for parameter in fit.module.parameters():
        if parameter.requires_grad and id(parameter) not in spread:
            if parameter.grad is None:  # this worker's rows had no use for it, another's may have
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


def clip_gradients(fit: Fit, largest: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `largest`; returns the norm before."""
    if fit.sharded is None:
        return nn.utils.clip_grad_norm_(fit.module.parameters(), largest)
    spread = {id(p) for p in fit.sharded.parameters()}
    parts = [[], []]
    for parameter in fit.module.parameters():
        if parameter.grad is not None:
            parts[id(parameter) in spread].append(parameter)
    norms = [nn.utils.get_total_norm([p.grad for p in part]) for part in parts if part]
    whole = torch.stack([getattr(norm, "full_tensor", lambda norm=norm: norm)() for norm in norms]).norm()
    factor = (largest / (whole + 1e-6)).clamp(max=1.0)
    for part in parts:
        for parameter in part:
            parameter.grad.mul_(factor)  # type: ignore[union-attr]
    return whole
