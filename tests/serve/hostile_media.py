"""Pictures and sounds of hostile requests: bombs, headers that lie, files cut short. Part of hostile.py."""

import io
import random
import struct
import zlib

import numpy as np
import soundfile
from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, bits: int = 1, colour: int = 0, data: bytes = b"", extra: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _wav(rate: int, channels: int, size: int, bits: int = 16, data: bytes = b"\1\2" * 200) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels & 0xFFFF, rate, (rate * 2) & 0xFFFFFFFF, 2, bits)
    return (
        b"RIFF"
        + struct.pack("<I", size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def bombs(rng: random.Random) -> tuple[bytes, bytes]:
    """Small files that unpack to large ones, and headers that lie."""
    side = rng.choice((3000, 6000, 30_000, 65_535, 2**31 - 1))
    packed = zlib.compress(b"\0" * rng.choice((10, 4_000_000)), 9)
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000, 9))
    gif = b"GIF89a" + struct.pack("<HH", side & 0xFFFF, side & 0xFFFF) + b"\x80\0\0" + b"\0" * 6
    gif += b",\0\0\0\0\x01\0\x01\0\0\2\2L\1\0;"
    form = struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, side & 0x7FFFFFFF, -5, 1, 24, 0, 0, 0, 0, 0, 0)
    bmp = b"BM" + form + b"\0" * 40
    image = rng.choice(
        (_png(side, side, data=packed), _png(side, 1, 16, 6, packed), _png(0, 0), _png(5000, 5000, 8, 3, packed),
         _png(4, 4, data=zlib.compress(b"\0" * 8), extra=text), gif, bmp,
         b"II*\0\x08\0\0\0\xff\xff" + b"\0\1\4\0\1\0\0\0\xff\xff\xff\xff" * 40)
    )  # fmt: skip
    out = io.BytesIO()
    soundfile.write(out, np.zeros(rng.choice((100, 4_000_000)), np.int16), 8000, format="FLAC")
    sound = rng.choice(
        (out.getvalue(), _wav(0, 1, 400), _wav(2**32 - 1, 1, 400), _wav(8000, 65_535, 400), _wav(8000, 0, 400),
         _wav(8000, 1, 2**32 - 1), _wav(8000, 1, 400, 0), _wav(8000, 1, 400, 65_535), _wav(1, 1, 2**31))
    )  # fmt: skip
    return image, sound


def damaged(rng: random.Random) -> tuple[bytes, bytes]:
    """Good pictures and sounds, cut short or with bytes changed."""
    out = io.BytesIO()
    noise = np.frombuffer(rng.randbytes(40 * 30 * 3), np.uint8).reshape(30, 40, 3)
    Image.fromarray(noise).save(out, rng.choice(("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")))
    tone = (np.sin(np.arange(4000) / 5) * 20_000).astype(np.int16)
    heard = io.BytesIO()
    soundfile.write(heard, tone, 8000, format=rng.choice(("WAV", "FLAC", "OGG", "MP3")))

    def spoil(data: bytes) -> bytes:
        if rng.random() < 0.5:
            return data[: rng.randrange(1, len(data))]
        spoilt = bytearray(data)
        for _ in range(rng.choice((1, 5, 50))):
            spoilt[rng.randrange(min(len(spoilt), rng.choice((40, len(spoilt)))))] = rng.randrange(256)
        return bytes(spoilt)

    return spoil(out.getvalue()), spoil(heard.getvalue())
