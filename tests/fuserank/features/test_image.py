"""Pictures of every kind come out as RGB of one size; damaged and oversized ones are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuserank.errors import MediaError
from fuserank.features.image import decode_image

SIZE = (12, 8)
RED = (200, 30, 40)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def decode(data: bytes, max_pixels: int = 10_000) -> np.ndarray:
    return decode_image(data, SIZE, max_pixels)


def close(pixels: np.ndarray, colour: tuple[int, int, int], by: int = 6) -> bool:
    assert pixels.shape == (*SIZE, 3)
    assert pixels.dtype == np.uint8
    return bool((np.abs(pixels.astype(int) - colour) <= by).all())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(kind: str) -> None:
    assert close(decode(encoded(Image.new("RGB", (40, 60), RED), kind)), RED, by=10)


def test_modes() -> None:
    assert close(decode(encoded(Image.new("RGB", (40, 60), RED).convert("CMYK"), "JPEG")), RED, by=12)
    assert close(decode(encoded(Image.new("L", (40, 60), 77))), (77, 77, 77))
    assert close(decode(encoded(Image.new("1", (40, 60), 1))), (255, 255, 255))
    assert close(decode(encoded(Image.new("RGB", (40, 60), RED).convert("P", palette=Image.Palette.ADAPTIVE))), RED)


def test_alpha_is_over_white() -> None:
    assert close(decode(encoded(Image.new("RGBA", (40, 60), (*RED, 0)))), (255, 255, 255))
    assert close(decode(encoded(Image.new("RGBA", (40, 60), (0, 0, 0, 128)))), (127, 127, 127))
    palette = Image.new("P", (40, 60), 3)
    palette.putpalette([0] * 9 + [*RED] + [0] * 756)
    assert close(decode(encoded(palette, transparency=3)), (255, 255, 255))
    assert close(decode(encoded(palette, transparency=2)), RED)


def test_sixteen_bits() -> None:
    grey = Image.fromarray(np.full((60, 40), 128 * 257, np.uint16))
    assert close(decode(encoded(grey)), (128, 128, 128))


def test_first_frame_of_an_animation() -> None:
    first, second = Image.new("RGB", (40, 60), RED), Image.new("RGB", (40, 60), (0, 0, 255))
    assert close(decode(encoded(first, "GIF", save_all=True, append_images=[second])), RED)


def test_orientation() -> None:
    picture = Image.new("RGB", (60, 40), (0, 0, 0))
    picture.paste(RED, (0, 0, 30, 40))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning right: the left half comes to the top
    pixels = decode(encoded(picture, "JPEG", exif=exif, quality=95))
    assert close(np.tile(pixels[1:3, 2:6].mean(axis=(0, 1)), (*SIZE, 1)).astype(np.uint8), RED, by=12)
    assert pixels[-2].max() < 20


def test_resize_averages() -> None:
    """Fine stripes become their mean, not one of them."""
    stripes = np.zeros((60, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    assert close(decode(encoded(Image.fromarray(stripes))), (100, 100, 100), by=12)


def test_refusals() -> None:
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 40, 3), np.uint8)))
    for broken in (b"", b"not a picture", data[: len(data) // 2], encoded(Image.new("RGB", (9, 9)), "PPM")):
        with pytest.raises(MediaError, match="unreadable picture"):
            decode(broken)
    with pytest.raises(MediaError, match="picture too large"):
        decode(data, max_pixels=60 * 40 - 1)


@pytest.mark.parametrize("side", [60_000, 2_000_000])
def test_bomb_is_refused_before_decoding(side: int) -> None:
    """A header that claims billions of pixels: refused by its numbers; decoding would need gigabytes."""
    chunk = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    header = struct.pack(">I", len(chunk)) + b"IHDR" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + chunk))
    body = zlib.compress(bytes(1000))
    pixels = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    with pytest.raises(MediaError, match="picture too large"):
        decode(b"\x89PNG\r\n\x1a\n" + header + pixels, max_pixels=40_000_000)


GOOD = {
    kind: encoded(Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)), kind)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
}


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 400), st.binary(min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_decoded(kind: str, at: int, damage: bytes) -> None:
    data = GOOD[kind][:at] + damage + GOOD[kind][at + len(damage) :]
    try:
        pixels = decode(data)
    except MediaError:
        return
    assert pixels.shape == (*SIZE, 3)
