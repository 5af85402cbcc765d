"""Random views of pictures and sounds, gaps in texts and attributes, drawn by each row's key.

Random resized crops and flips follow SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709); the hue is left
alone, because the colour of a product is part of what it is.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fuserank.models.encoders.audio import sounding
from fuserank.training.noise import uniform

# Streams of noise, far from those of dropout layers.
TOKENS, MODALITIES, VIEWS, VALUES, SOUNDS = 1_000_001, 1_000_002, 1_000_003, 1_000_004, 2_000_000

KNOTS = 4  # of a microphone's frequency response


def views(pixels: Tensor, keys: Tensor, smallest: float = 0.75, light: float = 0.15, stream: int = 0) -> Tensor:
    """[B, 3, H, W] uint8 → the same shape, each picture cropped, flipped and lit at random.

    Args:
        keys: int32 [B], what each picture's view follows from (training/noise.py); another `stream`, another view.
        smallest: the least side length of the crop, as a share of the picture's.
        light: how much the brightness varies.
    """
    draw = uniform(keys, VIEWS + stream, 6).T
    side = smallest + (1 - smallest) * draw[0]
    stretch = (0.9 + 0.2 * draw[1]).sqrt()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0] = width * torch.where(draw[2] < 0.5, -1.0, 1.0)  # a negative scale mirrors
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * draw[3] - 1)
    theta[:, 1, 2] = (1 - height) * (2 * draw[4] - 1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    cropped = F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
    bright = 1 + light * (2 * draw[5] - 1)
    return (cropped * bright.view(-1, 1, 1, 1)).round().clamp(0, 255).to(torch.uint8)


def sounds(mel: Tensor, keys: Tensor, stretch: float = 0.15, shift: float = 0.05, equaliser: float = 2.0) -> Tensor:
    """[B, mels, T] log-mel → the same shape: each sound faster or slower, of a longer or shorter throat, sooner or
    later, through another microphone, and in more or less noise.

    Vocal tract length perturbation (Jaitly & Hinton 2013, https://www.cs.toronto.edu/~hinton/absps/perturb.pdf) as a
    stretch of the bands from the lowest up; the microphone is a random line through KNOTS points over the bands, as in
    FilterAugment (Nam et al. 2022, https://arxiv.org/abs/2110.03282); the noise is a floor 4 to 12 nats below the peak
    where there is sound.

    Args:
        keys: int32 [B], what each sound's treatment follows from (training/noise.py).
        stretch: at most this share in time, four fifths of it over the bands. shift: share of the length, both ways.
        equaliser: nats of power that a band gains or loses at most.
    """
    bands, length = mel.shape[1:]
    draw = 2 * uniform(keys, SOUNDS, 4).T - 1
    theta = torch.zeros(len(mel), 2, 3, device=mel.device)
    theta[:, 0, 0], theta[:, 1, 1] = 1 + stretch * draw[0], 1 + 0.8 * stretch * draw[1]
    theta[:, 0, 2], theta[:, 1, 2] = 2 * shift * draw[2], 0.8 * stretch * draw[1]  # the lowest band stays the lowest
    grid = F.affine_grid(theta, [len(mel), 1, bands, length], align_corners=False)
    moved = F.grid_sample(mel[:, None].float(), grid, padding_mode="border", align_corners=False)[:, 0]
    knots = equaliser * (2 * uniform(keys, SOUNDS + 2, KNOTS) - 1)
    curve = F.interpolate(knots[:, None], bands, mode="linear", align_corners=True)[:, 0, :, None]
    moved = torch.where(sounding(moved), moved + curve, moved)
    floor = moved.amax((1, 2), keepdim=True) - 8 + 4 * draw[3].view(-1, 1, 1)
    hiss = uniform(keys, SOUNDS + 1, bands * length).view(moved.shape) - 0.5
    return torch.where(sounding(moved), torch.logaddexp(moved, floor + 2 * hiss), moved)


def drop_tokens(attention_mask: Tensor, share: float, keys: Tensor) -> Tensor:
    """[B, T] → the same with a random `share` of the tokens hidden; the first token of a row always stays."""
    drawn = uniform(keys, TOKENS, attention_mask.shape[1]) >= share
    drawn[:, 0] = True
    return attention_mask * drawn


def drop_values(attribute_ids: Tensor, share: float, keys: Tensor) -> Tensor:
    """[B, V] → the same with a random `share` of the ids made 0; a row that would lose all keeps all."""
    drawn = (uniform(keys, VALUES, attribute_ids.shape[1]) >= share) & (attribute_ids > 0)
    return attribute_ids * (drawn | ~drawn.any(1, keepdim=True))
