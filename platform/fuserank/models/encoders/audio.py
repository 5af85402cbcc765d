"""M_A: log-mel spectrogram → one vector, by one-dimensional convolutions over time with the mel bands as channels."""

import torch
from torch import Tensor, nn


class AudioEncoder(nn.Module):
    """[B, mels, frames] → [B, 4 · channels]."""

    def __init__(self, mels: int, channels: int):
        super().__init__()
        self.width = 4 * channels
        self.channels, self.stride = 2 * channels, 8  # of the features over time; one a `stride` frames
        blocks: list[nn.Module] = []
        incoming = mels
        for outgoing in (channels, 2 * channels, 2 * channels):
            blocks += [
                nn.Conv1d(incoming, outgoing, 5, stride=2, padding=2),
                nn.GroupNorm(4, outgoing),  # no running statistics: the same on one sound as on a batch
                nn.GELU(),
            ]
            incoming = outgoing
        self.blocks = nn.Sequential(*blocks)

    def over_time(self, mel: Tensor) -> Tensor:
        """[B, mels, frames] → [B, channels, ceil(frames / stride)]."""
        level = mel.mean((1, 2), keepdim=True)  # loudness is the microphone's, not the word's
        spread = mel.std((1, 2), keepdim=True).clamp(min=1e-3)
        return self.blocks((mel - level) / spread)

    def forward(self, mel: Tensor) -> Tensor:
        told = self.over_time(mel)
        return torch.cat([told.mean(2), told.amax(2)], 1)
