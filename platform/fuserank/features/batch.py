"""Feature values of some rows → the tensors an encoder takes. Reads and writes nothing.

Legend: B rows, T tokens, H W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def collate(modality: str, values: Sequence[Any], *, pad_id: int = 0) -> dict[str, Tensor]:
    """One modality's values, as a Featurizer makes them, in one batch.

    Args:
        modality: one of MODALITIES.
        values: token id lists | uint8 [H, W, 3] | float16 [mels, frames] | log-prices |
            int32 [V] attribute ids; none may be missing.
        pad_id: the tokenizer's padding id.

    Returns:
        text: `input_ids` and `attention_mask`, int64 [B, T], T the longest row.
        image: `pixels` uint8 [B, 3, H, W], channels last in memory.
        audio: `mel` float32 [B, mels, frames]; of a Hugging Face model `values` float32 [B, …] and `lengths` int64 [B].
        price: `log_price` float32 [B].
        attributes: `attribute_ids` int64 [B, V].

    Raises:
        ValueError: unknown modality or no rows.
    """
    if len(values) == 0:
        raise ValueError(f"no {modality} values to collate")
    if modality == "text":
        lengths = np.fromiter((len(ids) for ids in values), dtype=np.int64, count=len(values))
        return pad_tokens(np.concatenate([np.asarray(ids, dtype=np.int64) for ids in values]), lengths, pad_id)
    if modality == "image":
        return image_batch(np.stack(list(values)))
    if modality == "audio":
        return sound_batch(np.stack(list(values)))
    if modality == "price":
        return {"log_price": torch.tensor([float(value) for value in values], dtype=torch.float32)}
    if modality == "attributes":
        return {"attribute_ids": torch.from_numpy(np.stack(list(values)).astype(np.int64))}
    raise ValueError(f"unknown modality {modality!r}")


def pad_tokens(flat: np.ndarray, lengths: np.ndarray, pad_id: int) -> dict[str, Tensor]:
    """Token ids of all rows one after the other, and lengths [B] → padded int64 [B, T] and its mask."""
    there = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.full(there.shape, pad_id, dtype=np.int64)
    ids[there] = flat
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(there.astype(np.int64))}


def sound_batch(sounds: np.ndarray) -> dict[str, Tensor]:
    """float16 [B, mels, frames] → `mel`; [B] of extractor.sound_type → `values` and `lengths` in samples."""
    if sounds.dtype.names is None:
        return {"mel": torch.from_numpy(sounds.astype(np.float32))}
    lengths = torch.from_numpy(sounds["length"].astype(np.int64))
    return {"values": torch.from_numpy(sounds["values"].astype(np.float32)), "lengths": lengths}


def image_batch(pictures: np.ndarray) -> dict[str, Tensor]:
    """uint8 [B, H, W, 3] → `pixels` uint8 [B, 3, H, W], a channels-last view of the same memory."""
    return {"pixels": torch.from_numpy(pictures).permute(0, 3, 1, 2)}
