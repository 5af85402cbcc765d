"""Encoders against computations written out by hand: pooling, padding, price buckets, picture sizes, silence."""

import math

import numpy as np
import pytest
import torch

from fuserank.errors import ModelError
from fuserank.models.encoders.attributes import AttributesEncoder
from fuserank.models.encoders.audio import AudioEncoder, standardised
from fuserank.models.encoders.image import MEAN, SPREAD, ImageEncoder
from fuserank.models.encoders.price import PriceEncoder
from fuserank.models.encoders.text import MaskedLanguageHead, TextEncoder, small_bert


def bert(pooling: str = "mean") -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(small_bert(60, 2, 16, 2, 12), pooling).eval()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_text_pooling(pooling: str) -> None:
    encoder = bert(pooling)
    ids = torch.randint(1, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    seen = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    hidden = encoder.backbone(input_ids=ids, attention_mask=seen).last_hidden_state
    found = encoder(ids, seen)
    for row, count in enumerate((7, 4, 1)):
        expected = hidden[row, 0] if pooling == "cls" else hidden[row, :count].sum(0) / count
        torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_never_changes_a_text(pooling: str) -> None:
    encoder = bert(pooling)
    ids = torch.randint(1, 60, (2, 5), generator=torch.Generator().manual_seed(1))
    seen = torch.ones_like(ids)
    padded = torch.cat([ids, torch.tensor([[0, 0, 0], [7, 33, 9]])], 1)  # whatever lies there
    more = torch.cat([seen, torch.zeros(2, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(encoder(padded, more), encoder(ids, seen), atol=1e-6, rtol=1e-5)


def test_text_width_and_positions() -> None:
    encoder = bert()
    assert encoder.width == 16
    assert encoder.backbone.config.max_position_embeddings == 16
    assert encoder.backbone.get_input_embeddings().weight.shape == (60, 16)


def test_masked_language_head_is_tied() -> None:
    head, embeddings = MaskedLanguageHead(16, 60), torch.randn(60, 16)
    hidden = torch.randn(4, 16)
    expected = head.transform(hidden).detach().numpy() @ embeddings.numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(head(hidden, embeddings).detach().numpy(), expected, atol=1e-5)


def test_unknown_architecture() -> None:
    with pytest.raises(ModelError, match="nothing-like-it"):
        TextEncoder({"model_type": "nothing-like-it"})


def test_price_by_hand() -> None:
    torch.manual_seed(0)
    edges = [1.0, 2.0, 4.0]
    encoder = PriceEncoder(edges, frequencies=3, width=8)
    prices = [0.2, 1.0, 1.5, 2.0, 3.9, 4.0, 9.0]
    found = encoder(torch.tensor(prices))
    for row, price in enumerate(prices):
        bucket = sum(edge < price for edge in edges)  # an edge itself belongs to the bucket below it
        place = (price - 1.0) / 3.0
        angles = [place * math.pi * n for n in (1, 2, 3)]
        waves = [min(max(place, -2), 3), *map(math.sin, angles), *map(math.cos, angles)]
        expected = encoder.quantile.weight[bucket] + encoder.smooth(torch.tensor([waves]))[0]
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("edges", [[], [2.5]])
def test_a_shop_of_one_price(edges: list[float]) -> None:
    encoder = PriceEncoder(edges, 4)
    with torch.no_grad():
        found = encoder(torch.tensor([2.5, 2.5001, 3.0, 100.0]))
    assert found.isfinite().all()
    assert len(encoder.quantile.weight) == len(edges) + 1
    torch.testing.assert_close(
        encoder.smooth(_waves(encoder, 2.5)), encoder.smooth(_waves(encoder, 2.5001)), atol=0.01, rtol=0.01
    )


def _waves(encoder: PriceEncoder, price: float) -> torch.Tensor:
    place = torch.tensor([(price - encoder.low) / encoder.span])
    angles = place[:, None] * encoder.frequencies
    return torch.cat([place[:, None], angles.sin(), angles.cos()], 1)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (40, 30), (80, 60)])
def test_pictures_of_several_sizes(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet10").eval()
    pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        found = encoder(pixels)
        scaled = torch.from_numpy(
            (pixels.numpy() / 255 - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(SPREAD, (1, 3, 1, 1))
        )
        torch.testing.assert_close(found, encoder.backbone(scaled.float()), atol=1e-4, rtol=1e-4)
        flipped = encoder(pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))  # channels last in memory
    assert found.shape == (2, encoder.width) == (2, 256)
    torch.testing.assert_close(found, flipped)


def test_unknown_picture_model() -> None:
    for name in ("resnet19", "fasterrcnn_resnet50_fpn", "squeezenet1_0"):
        with pytest.raises(ModelError) as caught:
            ImageEncoder(name)
        assert name in caught.value.message
        assert caught.value.hint


def test_audio_hears_no_volume() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(mels=10, channels=8).eval()
    mel = torch.randn(3, 10, 40)
    found = encoder(mel)
    assert found.shape == (3, 32) == (3, encoder.width)
    torch.testing.assert_close(encoder(mel + 4), found, atol=1e-4, rtol=1e-3)  # louder: a constant on the log scale
    torch.testing.assert_close(encoder(mel[1:2])[0], found[1], atol=1e-5, rtol=1e-4)
    assert encoder(torch.full((1, 10, 40), -9.0)).isfinite().all()  # silence
    assert not torch.allclose(encoder(mel.flip(2)), found, atol=1e-3)


def test_silence_around_a_sound_has_no_say() -> None:
    """Standardised over the frames that hold sound, and pooled over them."""
    torch.manual_seed(0)
    mel = torch.full((1, 10, 160), -13.8155)
    mel[..., :64] = 3 * torch.randn(1, 10, 64)
    held = standardised(mel)[..., :64]
    kept = mel[..., :64].clamp(min=float(mel.max()) - 9)
    torch.testing.assert_close(held, (kept - kept.mean()) / kept.std(correction=0), atol=1e-4, rtol=1e-4)
    assert (standardised(mel)[..., 64:] == 0).all()
    encoder = AudioEncoder(mels=10, channels=8).eval()
    told = encoder.over_time(mel)[..., :8]  # a frame a stride of 8, and 64 frames of sound
    torch.testing.assert_close(encoder(mel), torch.cat([told.mean(2), told.amax(2)], 1), atol=1e-5, rtol=1e-4)


def test_attributes_are_a_bag() -> None:
    """The mean of the embeddings and a network over it, written out; padding and order change nothing."""
    torch.manual_seed(0)
    encoder = AttributesEncoder(vocabulary=9, hidden=8).eval()
    found = encoder(torch.tensor([[1, 9, 4, 0], [9, 4, 1, 0], [7, 0, 0, 0], [0, 0, 0, 0]]))
    table = encoder.embedding.weight.detach()
    for row, ids in ((0, [1, 9, 4]), (2, [7])):
        mean = table[ids].sum(0) / len(ids)
        inside = mean @ encoder.network[0].weight.T + encoder.network[0].bias
        bent = inside * 0.5 * (1 + torch.erf(inside / math.sqrt(2)))
        expected = mean + bent @ encoder.network[2].weight.T + encoder.network[2].bias
        torch.testing.assert_close(found[row], expected)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(encoder(torch.tensor([[7]]))[0], found[2])
    found.sum().backward()
    assert (encoder.embedding.weight.grad[0] == 0).all()  # type: ignore[index]
    assert found.shape == (4, encoder.width)
