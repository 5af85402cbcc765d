"""Masked spectrograms and masked items: what is hidden, and the losses against NumPy."""

import numpy as np
import pytest
import torch

from fuserank.losses.masked_item import mask_items, masked_item_loss
from fuserank.losses.masked_spectrogram import mask_frames, masked_spectrogram_loss

RANDOM = np.random.default_rng(0)


def test_frames_are_hidden_in_spans() -> None:
    mel = torch.from_numpy(RANDOM.normal(size=(200, 3, 30)).astype(np.float32))
    draws = torch.from_numpy(RANDOM.random((200, 4)).astype(np.float32))
    corrupted, hidden = mask_frames(mel, draws, 0.15, 8)
    for row in range(200):
        spans = [draws[row, s] < 0.15 or draws[row, s] == draws[row].min() for s in range(4)]
        assert hidden[row].tolist() == [bool(spans[t // 8]) for t in range(30)]
        assert hidden[row].any()
    assert torch.equal(corrupted.movedim(1, 2)[~hidden], mel.movedim(1, 2)[~hidden])
    expected = mel.mean((1, 2))[:, None].expand(-1, 30)[hidden]
    assert torch.allclose(corrupted.movedim(1, 2)[hidden], expected[:, None].expand(-1, 3))


def test_the_spectrogram_loss_against_numpy() -> None:
    mel, found = RANDOM.normal(3, 2, (4, 5, 9)), RANDOM.normal(size=(4, 5, 9))
    hidden = RANDOM.random((4, 9)) < 0.4
    truth = (mel - mel.mean((1, 2), keepdims=True)) / mel.std((1, 2), keepdims=True, ddof=1)
    away = [np.abs(found[b, :, t] - truth[b, :, t]).mean() for b in range(4) for t in range(9) if hidden[b, t]]
    arguments = torch.from_numpy(found), torch.from_numpy(mel), torch.from_numpy(hidden)
    assert masked_spectrogram_loss(*arguments).item() == pytest.approx(np.mean(away), abs=1e-5)
    assert masked_spectrogram_loss(*arguments, 1).item() == pytest.approx(np.sum(away), abs=1e-4)
    assert masked_spectrogram_loss(arguments[0], arguments[1], torch.zeros(4, 9, dtype=torch.bool)).item() == 0


def test_items_are_hidden_of_histories_with_a_neighbour_to_tell_from() -> None:
    mask = torch.from_numpy(np.arange(10) < RANDOM.integers(0, 11, (500, 1)))
    draws = torch.from_numpy(RANDOM.random((500, 10)).astype(np.float32))
    hidden = mask_items(mask, draws)
    lengths = mask.sum(1)
    assert not (hidden & ~mask).any()
    assert not hidden[lengths < 2].any()
    assert hidden[lengths >= 2].any(1).all()
    more = hidden[lengths == 10].float().mean().item()
    assert more == pytest.approx(0.2 + 0.8**10 / 10, abs=0.05)


def test_the_item_loss_against_numpy() -> None:
    told, products = RANDOM.normal(size=(2, 4, 3)), RANDOM.normal(size=(6, 3))
    rows, hidden = RANDOM.integers(0, 6, (2, 4)), np.array([[1, 0, 1, 0], [0, 0, 0, 1]], bool)
    logits = 5 * told @ products.T
    each = [
        np.log(np.exp(logits[b, t]).sum()) - logits[b, t, rows[b, t]] for b, t in zip(*hidden.nonzero(), strict=True)
    ]
    found = masked_item_loss(*map(torch.from_numpy, (told, products, rows, hidden)), 5.0)
    assert found.item() == pytest.approx(np.mean(each), abs=1e-5)
