"""Masked spectrogram over the training products' sounds, for the log-mel convolutional encoder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fuserank.features.table import FeatureTable
from fuserank.losses.masked_spectrogram import mask_frames, masked_spectrogram_loss
from fuserank.models.encoders.audio import AudioEncoder
from fuserank.training.augment import TOKENS
from fuserank.training.group import ALONE, Group
from fuserank.training.noise import uniform
from fuserank.training.pretraining.task import noise, own, training_rows

SPAN = 8  # frames: 80 ms


class MaskedSpectrogram(nn.Module):
    """Audio encoder and a head that tells the mel bands of every frame."""

    def __init__(self, encoder: AudioEncoder, mels: int, group: Group = ALONE):
        super().__init__()
        self.encoder, self.group = encoder, group
        self.head = nn.ConvTranspose1d(encoder.channels, mels, encoder.stride, encoder.stride)

    def forward(self, mel: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """[B, mels, T] and [B] keys that decide which spans are hidden."""
        mel = mel.float()
        corrupted, hidden = mask_frames(mel, uniform(keys, TOKENS, -(-mel.shape[2] // SPAN)), span=SPAN)
        mine = own(self.group, len(keys)).to(keys.device)
        told = self.head(self.encoder.over_time(corrupted[mine]))[..., : mel.shape[2]]
        share = self.group.world / max(1, int(hidden.sum()))
        return {"masked_spectrogram": masked_spectrogram_loss(told, mel[mine], hidden[mine], 1) * share}


class AudioTask:
    """Batches of sounds."""

    loss = "masked_spectrogram"

    def __init__(self, encoder: AudioEncoder, preprocess: Path, products: FeatureTable, group: Group = ALONE):
        self.table, self.rows = products, training_rows(preprocess, "products", products, "audio")
        self.module: nn.Module = MaskedSpectrogram(encoder, products.audio.shape[1], group)
        self.parts: Mapping[str, nn.Module] = {"audio": encoder}
        self.count = len(self.rows)

    def batches(self, epoch: int, seed: int, size: int, start: int = 0) -> Iterator[tuple]:
        order = np.random.default_rng((seed, epoch, 3)).permutation(self.rows)
        for step in range(start, self.steps(size)):
            rows = order[step * size : (step + 1) * size]
            (mel,) = self.table.batch(rows, "audio").values()
            yield mel, noise(rows, seed, epoch, step)

    def steps(self, size: int) -> int:
        return -(-self.count // size)
