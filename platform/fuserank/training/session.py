"""A worker's contact with Ray Train: which one it is, how weights are spread over the workers, and checkpoints."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuserank.training.group import Group
from fuserank.training.helpers import give_way


class Session:
    """What a worker function asks of Ray Train."""

    def __init__(self, seconds: float):
        """seconds: between checkpoints on the way; 0 for one at every step."""
        import ray.train
        from ray.train.torch import get_device

        context = ray.train.get_context()
        self.group = Group(context.get_world_rank(), context.get_world_size())
        self.device: torch.device = get_device()
        self.seconds, self.saved = seconds, time.monotonic()
        self._asked = False

    @property
    def first(self) -> bool:
        """Whether this worker speaks for all."""
        return self.group.rank == 0

    def due(self) -> bool:
        """Whether a checkpoint is due: the first worker's clock, heard by all. Asked after every step."""
        if not self._asked:  # helpers start beside the worker; by the first step they are there
            self._asked = True
            give_way()
        return self.group.agree(float(time.monotonic() - self.saved >= self.seconds), self.device) > 0

    def report(self, metrics: dict[str, Any], write: Callable[[Path], Any]) -> None:
        """Report with a checkpoint that `write` fills; all workers call this, the first one writes."""
        import ray.train
        from ray.train import Checkpoint

        with tempfile.TemporaryDirectory() as folder:
            if self.first:
                write(Path(folder))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if self.first else None)
        self.saved = time.monotonic()

    def spread(self, module: nn.Module, encoders: nn.ModuleDict, strategy: str) -> tuple[nn.Module, nn.Module | None]:
        """What is trained, made ready for several workers. Call before its optimiser is made.

        Args:
            strategy: "ddp", every worker holds all weights; or "fsdp", weights, gradients and moments of the text,
                image and Hugging Face audio networks are sharded (Zhao et al. 2023, https://arxiv.org/abs/2304.11277),
                and the rest, which is small, stays whole.

        Returns:
            The module to call, and what of it is sharded (None for nothing).
        """
        if strategy == "fsdp":
            return module, shard(encoders, self.group, self.device)
        if self.group.world == 1:
            return module, None
        from ray.train.torch import prepare_model

        return prepare_model(module, parallel_strategy_kwargs={"find_unused_parameters": True}), None


def shard(encoders: nn.ModuleDict, group: Group, device: torch.device) -> nn.ModuleList | None:
    """Shard every encoder's backbone that has a trained weight; None where there is none, or one worker."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = [b for e in encoders.values() if isinstance(b := getattr(e, "backbone", None), nn.Module)]
    found = [backbone for backbone in found if any(p.requires_grad for p in backbone.parameters())]
    if group.world == 1 or not found:
        return None
    mesh = init_device_mesh(device.type, (group.world,))
    for backbone in found:
        fully_shard(backbone, mesh=mesh)
    return nn.ModuleList(found)
