"""Random views of a batch of pictures, drawn from one generator so that a seed fixes them.

Random resized crops and flips follow SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709); the hue is left
alone, because the colour of a product is part of what it is.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def views(pixels: Tensor, generator: torch.Generator, smallest: float = 0.75, light: float = 0.15) -> Tensor:
    """[B, 3, H, W] uint8 → the same shape, each picture cropped, flipped and lit at random.

    Args:
        smallest: the least side length of the crop, as a share of the picture's.
        light: how much the brightness varies.
    """
    batch = len(pixels)
    draw = torch.rand(6, batch, generator=generator)
    side = smallest + (1 - smallest) * draw[0]
    stretch = (0.9 + 0.2 * draw[1]).sqrt()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = width * torch.where(draw[2] < 0.5, -1.0, 1.0)  # a negative scale mirrors
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * draw[3] - 1)
    theta[:, 1, 2] = (1 - height) * (2 * draw[4] - 1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    cropped = F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
    bright = 1 + light * (2 * draw[5] - 1)
    return (cropped * bright.view(-1, 1, 1, 1)).round().clamp(0, 255).to(torch.uint8)


def drop_tokens(attention_mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """[B, T] → the same with a random `share` of the tokens hidden; the first token of a row always stays."""
    drawn = torch.rand(attention_mask.shape, generator=generator) >= share
    drawn[:, 0] = True
    return attention_mask * drawn
