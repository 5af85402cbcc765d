"""Masked spectrogram modelling: spans of time are hidden and their mel bands told from what is around them.

Mockingjay (Liu et al. 2020, https://arxiv.org/abs/1910.12638): about 15 % of the frames in spans, mean absolute error.
"""

import torch
from torch import Tensor


def mask_frames(mel: Tensor, draws: Tensor, share: float = 0.15, span: int = 8) -> tuple[Tensor, Tensor]:
    """Hide spans of `span` frames.

    Args:
        mel: [B, mels, T].
        draws: [B, ceil(T / span)] uniform in [0, 1), one a span.

    Returns:
        ([B, mels, T] with the hidden frames at the sound's mean level, [B, T] bool hidden frames; at least one span of
        each sound is)
    """
    chosen = draws < share
    chosen |= draws == draws.amin(1, keepdim=True)
    hidden = chosen.repeat_interleave(span, 1)[:, : mel.shape[2]]
    return torch.where(hidden[:, None], mel.mean((1, 2), keepdim=True), mel), hidden


def masked_spectrogram_loss(found: Tensor, mel: Tensor, hidden: Tensor, count: int | None = None) -> Tensor:
    """Mean absolute error of the hidden frames, each sound standardised by its own mean and spread.

    Args:
        found: [B, mels, T] told, in standardised units; mel: [B, mels, T]; hidden: [B, T] bool.
        count: hidden frames to divide by, in place of the number in `hidden`.

    Returns:
        A scalar, 0 if nothing is hidden.
    """
    spread = mel.std((1, 2), keepdim=True).clamp(min=1e-3)
    truth = (mel - mel.mean((1, 2), keepdim=True)) / spread
    away = (found.float() - truth.float()).abs().mean(1)  # [B, T]
    return torch.where(hidden, away, 0).sum() / max(1, int(hidden.sum()) if count is None else count)
