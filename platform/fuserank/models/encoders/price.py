"""Price → one vector: a learned embedding of the log-price's quantile, plus Fourier features of the log-price.

Fourier features: Gorishniy et al. 2022, "On Embeddings for Numerical Features", https://arxiv.org/abs/2203.05556.
"""

import math

import torch
from torch import Tensor, nn


class PriceEncoder(nn.Module):
    """[B] natural logarithm of the price → [B, width]."""

    boundaries: Tensor
    frequencies: Tensor

    def __init__(self, boundaries: list[float], frequencies: int, width: int = 64):
        """
        Args:
            boundaries: increasing log-prices that part the quantiles.
            frequencies: how many Fourier frequencies, from one period over the whole range upwards.
        """
        super().__init__()
        self.width = width
        low, high = (boundaries[0], boundaries[-1]) if boundaries else (0.0, 1.0)
        self.low, self.span = low, high - low if high > low else 1.0  # one price only: the logarithm as it is
        self.register_buffer("boundaries", torch.tensor(boundaries, dtype=torch.float32), persistent=False)
        self.register_buffer("frequencies", math.pi * (1 + torch.arange(frequencies).float()), persistent=False)
        self.quantile = nn.Embedding(len(boundaries) + 1, width)
        self.smooth = nn.Sequential(nn.Linear(2 * frequencies + 1, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, log_price: Tensor) -> Tensor:
        place = (log_price - self.low) / self.span  # 0…1 over the middle of the catalogue
        angles = place[:, None] * self.frequencies
        waves = torch.cat([place[:, None].clamp(-2, 3), angles.sin(), angles.cos()], 1)
        return self.quantile(torch.bucketize(log_price, self.boundaries)) + self.smooth(waves)
