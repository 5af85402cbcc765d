"""M_A: log-mel spectrogram → one vector, by convolutions over bands and time.

Two-dimensional, because a voice that lies higher moves the same pattern up a few bands (as in Hershey et al. 2017,
https://arxiv.org/abs/1609.09430); then over time alone. Silence
and padding are neither standardised by nor pooled over.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SILENT = -13.7  # log-mel power: below it a frame holds no sound at all (features/audio.py, FLOOR)
QUIET = 9.0  # nats below a sound's peak (39 dB) that count as one with its background


class AudioEncoder(nn.Module):
    """[B, mels, frames] → [B, 4 · channels]."""

    def __init__(self, mels: int, channels: int, dropout: float = 0.2):
        super().__init__()
        self.width = 4 * channels
        self.channels, self.stride = 2 * channels, 8  # of the features over time; one a `stride` frames
        self.dropout = dropout
        blocks: list[nn.Module] = []
        incoming, bands = 1, mels
        for outgoing, stride in ((channels // 2, (2, 2)), (channels, (2, 2)), (channels, (2, 2)), (channels, (2, 1))):
            size = 5 if incoming == 1 else 3
            blocks += [
                nn.Conv2d(incoming, outgoing, size, stride, size // 2),
                nn.GroupNorm(2, outgoing),  # no running statistics: the same on one sound as on a batch
                nn.GELU(),
            ]
            incoming, bands = outgoing, -(-bands // 2)
        self.blocks = nn.Sequential(*blocks)
        self.mix = nn.Conv1d(channels * bands, self.channels, 3, padding=1)

    def over_time(self, mel: Tensor) -> Tensor:
        """[B, mels, frames] → [B, channels, ceil(frames / stride)]."""
        return F.gelu(self.mix(self.blocks(standardised(mel)[:, None]).flatten(1, 2)))

    def forward(self, mel: Tensor) -> Tensor:
        told = self.over_time(mel)
        held = F.interpolate(sounding(mel).to(told.dtype), told.shape[2])  # [B, 1, time]
        mean = (told * held).sum(2) / held.sum(2).clamp(min=1)
        loudest = torch.where(held > 0, told, -1.0).amax(2)  # GELU's values lie above −0.17
        return F.dropout(torch.cat([mean, loudest], 1), self.dropout, self.training)


def sounding(mel: Tensor) -> Tensor:
    """bool [B, 1, frames]: frames that hold any sound; all of them where none does."""
    found = mel.amax(1, keepdim=True) > SILENT
    return found | ~found.any(2, keepdim=True)


def standardised(mel: Tensor) -> Tensor:
    """[B, mels, frames] → the same with mean 0 and spread 1 over the frames that hold sound, 0 in the others; loudness
    and background are the microphone's, not the word's."""
    held = sounding(mel)
    mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - QUIET)
    count = held.sum(2, keepdim=True) * mel.shape[1]
    mean = (mel * held).sum((1, 2), keepdim=True) / count
    spread = (((mel - mean) * held).square().sum((1, 2), keepdim=True) / count).sqrt().clamp(min=1e-3)
    return (mel - mean) / spread * held
