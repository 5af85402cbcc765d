"""A training run on disk: weights, optimiser, schedule, scaler, random state, position in the data, and what the epoch
under way has made.

Tensors only and plain numbers: read back with `weights_only=True`, never unpickled.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from fuserank.training.loop import Fit

FILE = "state.pt"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def bare(module: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def capture(fit: Fit, extra: dict[str, Any]) -> dict[str, Any]:
    """The whole state; every worker calls this where weights are sharded, and the first one's is what counts.

    Args:
        extra: tensors, numbers, strings, lists and dicts of them.
    """
    if fit.sharded is None:
        weights, moments = bare(fit.module).state_dict(), fit.optimizer.state_dict()
    else:
        weights, moments = get_state_dict(fit.module, fit.optimizer, options=WHOLE)
    values = {
        "module": weights,
        "optimizer": moments,
        "schedule": fit.schedule.state_dict(),
        "position": {"epoch": fit.epoch, "step": fit.step},
        "means": {"sums": fit.sums, "counts": fit.counts},
        "random": torch.get_rng_state(),
        "extra": extra,
    }
    if fit.scaler is not None:
        values["scaler"] = fit.scaler.state_dict()
    if torch.cuda.is_available():
        values["cuda_random"] = torch.cuda.get_rng_state_all()
    return values


def write_state(values: dict[str, Any], folder: Path) -> None:
    """Write what `capture` took."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(values, folder / FILE)


def save_state(fit: Fit, folder: Path, extra: dict[str, Any]) -> None:
    """`capture`, written at once."""
    write_state(capture(fit, extra), folder)


def load_state(fit: Fit, folder: Path) -> dict[str, Any]:
    """Restore what `save_state` wrote into `fit`; returns `extra`."""
    values = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    if fit.sharded is None:
        bare(fit.module).load_state_dict(values["module"])
        fit.optimizer.load_state_dict(values["optimizer"])
    else:
        set_state_dict(
            fit.module,
            fit.optimizer,
            model_state_dict=values["module"],
            optim_state_dict=values["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
    fit.schedule.load_state_dict(values["schedule"])
    fit.epoch, fit.step = values["position"]["epoch"], values["position"]["step"]
    device = next(fit.module.parameters()).device
    fit.sums = {name: value.to(device) for name, value in values["means"]["sums"].items()}
    fit.counts = values["means"]["counts"]
    torch.set_rng_state(values["random"])
    if fit.scaler is not None and "scaler" in values:
        fit.scaler.load_state_dict(values["scaler"])
    if "cuda_random" in values and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(values["cuda_random"])
    return values["extra"]
