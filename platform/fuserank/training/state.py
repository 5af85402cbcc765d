"""A training run on disk: weights, optimiser, schedule, random state, position, and the best weights so far.

Tensors only and plain numbers: read back with `weights_only=True`, never unpickled.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuserank.training.loop import Fit

FILE = "state.pt"


def bare(module: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def save_state(fit: Fit, folder: Path, extra: dict[str, Any]) -> None:
    """Write the state; `extra` may hold tensors, numbers, strings, lists and dicts of them."""
    values = {
        "module": bare(fit.module).state_dict(),
        "optimizer": fit.optimizer.state_dict(),
        "schedule": fit.schedule.state_dict(),
        "epoch": fit.epoch,
        "random": torch.get_rng_state(),
        "extra": extra,
    }
    if torch.cuda.is_available():
        values["cuda_random"] = torch.cuda.get_rng_state_all()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(values, folder / FILE)


def load_state(fit: Fit, folder: Path) -> dict[str, Any]:
    """Restore what `save_state` wrote into `fit`; returns `extra`."""
    values = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    bare(fit.module).load_state_dict(values["module"])
    fit.optimizer.load_state_dict(values["optimizer"])
    fit.schedule.load_state_dict(values["schedule"])
    fit.epoch = values["epoch"]
    torch.set_rng_state(values["random"])
    if "cuda_random" in values and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(values["cuda_random"])
    return values["extra"]
