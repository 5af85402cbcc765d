"""Pictures and sounds that are too large are refused by their headers, in queries and in changes of products."""

import base64
import io
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from PIL import Image

from fuserank.errors import MediaError
from serve.gateway import Gateway
from serve.media_limits import MediaLimits


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A valid black PNG, about a thousandth of the size of its pixels."""
    rows = zlib.compress(b"\0" * ((width // 8 + 1) * height), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sound(seconds: float, kind: str = "FLAC") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(round(8000 * seconds), np.int16), 8000, format=kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_pixels_are_counted_without_decoding(kind: str):
    out = io.BytesIO()
    Image.new("RGB", (300, 200)).save(out, kind)
    MediaLimits(pixels=60_000).check("image", out.getvalue())
    with pytest.raises(MediaError, match="300×200 pixels, limit 59999"):
        MediaLimits(pixels=59_999).check("image", out.getvalue())


def test_a_bomb_costs_neither_memory_nor_time():
    data = bomb(20_000, 20_000)
    assert len(data) < 100_000
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(MediaError, match=r"more than \d{9} pixels, limit 25000000"):
        MediaLimits().check("image", data)
    seconds, (_, peak) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # its pixels would be 400 MB, as colours 1.2 GB
    assert seconds < 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0))
    lying = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0"))
    with pytest.raises(MediaError, match="picture too large"):
        MediaLimits().check("image", lying)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_seconds_are_counted_by_the_header(kind: str):
    data = sound(3, kind)
    MediaLimits(seconds=3.2).check("audio", data)  # MP3 pads
    with pytest.raises(MediaError, match=r"sound too long: 3\.\d s, limit 2\.9"):
        MediaLimits(seconds=2.9).check("audio", data)


def test_silence_of_hours_in_few_bytes_is_refused():
    data = sound(3600)
    assert len(data) < 200_000
    with pytest.raises(MediaError, match=r"3600\.0 s, limit 60"):
        MediaLimits().check("audio", data)


def test_bytes_are_counted_and_nonsense_is_left_to_the_decoder():
    with pytest.raises(MediaError, match="image: 11 bytes, limit 10"):
        MediaLimits(file_bytes=10).check("image", b"x" * 11)
    for modality in ("image", "audio"):
        MediaLimits().check(modality, b"nonsense")


def test_queries_answer_413_and_products_are_rejected(client: TestClient, gateway: Gateway):
    picture = base64.b64encode(bomb(6000, 6000)).decode()
    refused = client.post("/v1/search", json={"text": "red", "image": picture})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert "6000×6000" in refused.json()["error"]["message"]
    long = client.post("/v1/search", json={"audio": base64.b64encode(sound(90)).decode()})
    assert (long.status_code, long.json()["error"]["code"]) == (413, "too_large")
    changed = client.post("/v1/products", json=[{"product_id": "bomb", "title": "x", "images": [picture]}]).json()
    assert changed["items"][0]["status"] == "rejected"
    assert "6000×6000 pixels" in changed["items"][0]["reason"]


@pytest.mark.parametrize(("path", "body"), [("/v1/events", []), ("/v1/products", []), ("/v1/products/delete", "ids")])
def test_a_request_holds_so_many_items(client: TestClient, gateway: Gateway, path: str, body: Any):
    gateway._admission.max_items = 2
    items: Any = ["a", "b", "c"]
    refused = client.post(path, json={body: items} if isinstance(body, str) else items)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_many_items")
