"""The workers of one training run: each encodes its share of a batch, and all see the whole of it.

Losses compare every product of the global batch with every query of it. So encoder outputs are gathered, gradients
flow back to the worker that encoded them, and what lies above the encoders is computed by every worker alike; a step on
W workers is then the step of one (as in Radford et al. 2021, https://arxiv.org/abs/2103.00020, without the sharding of
the similarities).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """This worker and how many there are."""

    rank: int = 0
    world: int = 1

    def share(self, count: int) -> np.ndarray:
        """This worker's places among `count`: every world-th, the same number on each (the first ones fill up)."""
        if self.world == 1:
            return np.arange(count)
        return (self.rank + self.world * np.arange(-(-count // self.world))) % count

    def collect(self, own: Tensor, count: int) -> Tensor:
        """Rows of `share`, of every worker, back in their order: [ceil(count / W), …] → [count, …], with gradients.

        A row's gradient is the sum over the workers, each of which computes the whole loss: W times that of the loss.
        Data-parallel training divides by W when it averages the gradients of the weights.
        """
        return own if self.world == 1 else _Collect.apply(own.float(), self.world)[:count]  # type: ignore[index]

    def agree(self, value: float, device: torch.device) -> float:
        """The first worker's value, on every worker."""
        if self.world == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(held, 0)
        return float(held)


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, world: int) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)  # row i was the (i // W)-th of worker i % W

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        dist.all_reduce(gradient := gradient.contiguous().clone())
        world, rank = dist.get_world_size(), dist.get_rank()
        return gradient[rank::world].contiguous(), None


ALONE = Group()
"""One worker."""
