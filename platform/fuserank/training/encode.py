"""Runs the encoders over one side of a batch, or over whole tables without gradients."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fuserank.models.fused import QUERYABLE, FusedModel
from fuserank.training.data import Inputs, Side, gather
from fuserank.training.dropout import SeededDropout
from fuserank.training.group import ALONE, Group

CHUNK = 256  # rows encoded at a time
ROWS = 32  # texts are encoded in multiples of, in bfloat16 on a CPU
Role = Literal["product", "query"]


def hidden_of(model: FusedModel, side: Side, parts: int = 1) -> dict[str, Tensor]:
    """Encoder outputs of the rows that have each modality, all workers' rows.

    A single row has no batch statistics (a ResNet refuses it): the running ones serve it, and it still trains.

    Args:
        parts: encode in so many parts, whose activations are thrown away and computed again for the gradient: the
            memory of one part, the losses and gradients of the whole batch (gradient caching, Gao et al. 2021,
            https://arxiv.org/abs/2101.06983, by the checkpointing of Chen et al. 2016, https://arxiv.org/abs/1604.06174).
    """
    found = {}
    for modality, (places, inputs) in side.inputs.items():
        encoder = model.encoders[modality]
        training, count = encoder.training, len(next(iter(inputs.values())))
        encoder.train(training and count > 1)
        noise = side.own_keys(modality) if training and "hidden" not in inputs else None
        size = -(-count // parts)
        pieces = []
        for start in range(0, count, size):
            piece = {name: values[start : start + size] for name, values in inputs.items()}
            seeds = None if noise is None else noise[start : start + size]
            if parts > 1 and training and "hidden" not in inputs:
                pieces.append(checkpoint(_encode, model, modality, piece, seeds, use_reentrant=False))
            else:
                pieces.append(_encode(model, modality, piece, seeds))
        found[modality] = side.group.collect(torch.cat(pieces) if len(pieces) > 1 else pieces[0], len(places))
        encoder.train(training)
    return found


def _encode(model: FusedModel, modality: str, inputs: dict[str, Tensor], noise: Tensor | None) -> Tensor:
    count = len(next(iter(inputs.values())))
    if "input_ids" in inputs and torch.is_autocast_enabled("cpu"):
        inputs, noise = _even(inputs, count, noise)
    with contextlib.nullcontext() if noise is None else SeededDropout(noise):
        return model.hidden(modality, inputs)[:count]


def _even(inputs: dict[str, Tensor], count: int, noise: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
    """The texts and a few copies of the first one, up to a multiple of ROWS: few shapes, few kernels to compile
    (models/precision.py). No other encoder has so many products, nor is every one's answer free of its neighbours."""
    rows = torch.arange(-(-count // ROWS) * ROWS)
    rows[count:] = 0
    return {name: values[rows] for name, values in inputs.items()}, None if noise is None else noise[rows]


def place(model: FusedModel, side: Side, hidden: dict[str, Tensor], role: Role) -> tuple[Tensor, Tensor]:
    """Unit vectors [B, M, D] (zeros where missing) and their mask [B, M]."""
    batch, modalities = side.mask.shape
    vectors = torch.zeros(batch, modalities, model.width, device=side.mask.device)
    mask = side.mask
    for column, modality in enumerate(model.modalities):
        if role == "query" and modality not in QUERYABLE:
            mask = mask.clone()
            mask[:, column] = False
        elif modality in hidden:
            places = side.inputs[modality][0]
            filled = torch.zeros(batch, model.width, device=vectors.device)
            filled = filled.index_copy(0, places, model.project(modality, hidden[modality]))
            vectors = torch.cat([vectors[:, :column], filled[:, None], vectors[:, column + 1 :]], 1)
    return vectors, mask


@torch.no_grad()
def encode_chunks(
    model: FusedModel,
    table: Inputs,
    rows: np.ndarray,
    modalities: tuple[str, ...],
    columns: list[int],
    device: torch.device,
    size: int = CHUNK,
    group: Group = ALONE,
) -> Iterator[tuple[np.ndarray, Side, dict[str, Tensor]]]:
    """Encoder outputs of many rows, a chunk at a time; the model is in evaluation mode while the chunks are drawn.

    Args:
        modalities: which encoders to run; columns: their places in the table's mask.
        group: the workers that share each chunk; all of them get all outputs.

    Yields:
        The chunk's rows, its inputs, and its encoder outputs by modality ([rows with it, H]).
    """
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            side = gather(table, chunk, modalities, columns, group).to(device)
            with autocast(device):
                hidden = hidden_of(model, side)
            yield chunk, side, hidden
    finally:
        model.train(was_training)


@torch.no_grad()
def encode_table(
    model: FusedModel,
    table: Inputs,
    rows: np.ndarray,
    columns: list[int],
    role: Role,
    device: torch.device,
    size: int = CHUNK,
    group: Group = ALONE,
) -> tuple[Tensor, Tensor]:
    """Vectors [N, M, D] and mask [N, M] of many rows, on the CPU; the model is put in evaluation mode for it."""
    vectors, masks = [], []
    for _, side, hidden in encode_chunks(model, table, rows, model.modalities, columns, device, size, group):
        with autocast(device):
            vector, mask = place(model, side, hidden, role)
        vectors.append(vector.float().cpu())
        masks.append(mask.cpu())
    if not vectors:
        count = len(model.modalities)
        return torch.zeros(0, count, model.width), torch.zeros(0, count, dtype=torch.bool)
    return torch.cat(vectors), torch.cat(masks)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively (elsewhere it is emulated and slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """Mixed precision: bfloat16 where it pays (`auto`), or as told ("bfloat16", "float16", "float32")."""
    if precision == "float16":  # for GPUs without bfloat16; the loop scales the loss for it
        return torch.autocast(device.type, torch.float16)
    enabled = precision == "bfloat16" or (precision == "auto" and bfloat16_pays(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
