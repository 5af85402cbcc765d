"""M_A: log-mel spectrogram → one vector, by one-dimensional convolutions over time with the mel bands as channels."""

import torch
from torch import Tensor, nn


class AudioEncoder(nn.Module):
    """[B, mels, frames] → [B, 4 · channels]."""

    def __init__(self, mels: int, channels: int):
        super().__init__()
        self.width = 4 * channels
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

    def forward(self, mel: Tensor) -> Tensor:
        level = mel.mean((1, 2), keepdim=True)  # loudness is the microphone's, not the word's
        spread = mel.std((1, 2), keepdim=True).clamp(min=1e-3)
        over_time = self.blocks((mel - level) / spread)  # [B, C, frames / 8]
        return torch.cat([over_time.mean(2), over_time.amax(2)], 1)
