"""The contract of a self-supervised task, and which rows it may see."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from fuserank.features.table import FeatureTable
from fuserank.training.group import Group
from fuserank.training.noise import keys


class Task(Protocol):
    """What the worker trains for the epochs that the config gives it."""

    loss: str
    """Name of the loss that `module` returns."""

    @property
    def module(self) -> nn.Module:
        """What is trained; its forward takes one of `batches` and returns losses by name."""
        ...

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """What outlives the task, by the name of its file."""
        ...

    def steps(self, size: int) -> int:
        """Steps an epoch at `size` rows each."""
        ...

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        """Forward arguments of an epoch, from step `start` on; every worker gets the whole batch's."""
        ...


def training_rows(preprocess: Path, name: str, table: FeatureTable, modality: str) -> np.ndarray:
    """Rows of the training split (all rows where the split is not by this table) that have the modality."""
    return np.flatnonzero(in_training(preprocess, name, len(table.ids)) & table.has(modality))


def in_training(preprocess: Path, name: str, count: int) -> np.ndarray:
    """bool [N]: rows of `preprocess/<name>.parquet` that belong to the training split."""
    split = np.array(pq.read_table(preprocess / f"{name}.parquet", columns=["split"])["split"].to_pylist(), object)
    return split == "training" if any(value is not None for value in split) else np.ones(count, bool)


def noise(rows: np.ndarray, seed: int, epoch: int, step: int, stream: int = 9) -> Tensor:
    """int32 [B]: the rows' keys in a step; another `stream`, others."""
    return keys(torch.from_numpy(np.asarray(rows, np.int64)), seed, epoch, step, stream)


def own(group: Group, count: int) -> Tensor:
    """This worker's places among `count`, none twice: for losses that are sums over rows."""
    return torch.arange(group.rank, count, group.world)
