"""The encoder deployments give exactly what the model gives, and keep unreadable media to themselves."""

import asyncio
import io
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.artifacts import write_json
from fuserank.features.batch import collate
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.models.build import build_model
from fuserank.models.checkpoint import load_model, save_model
from fuserank.retrieval.generation import FORMAT, MANIFEST
from serve.audio_encoder import AudioEncoder
from serve.envelope import Envelope, Result
from serve.image_encoder import ImageEncoder
from serve.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/ and featurizer/ of a small model with all modalities."""
    folder = tmp_path_factory.mktemp("generation")
    featurizer = Featurizer.fit(["red shoe", "blue hat"], [2.0, 3.0], FeatureSettings(image_size=(32, 32)))
    featurizer.save(folder / "featurizer")
    settings = featurizer.settings
    encoders = config.Encoders(text=config.TextEncoder(layers=1, hidden=32, heads=2), recommender=None)
    torch.manual_seed(1)
    edges = list(settings.price_edges)
    save_model(
        build_model(encoders, config.Fusion(width=32), settings.vocabulary, 32, settings.mels, edges), folder / "model"
    )
    write_json(folder / MANIFEST, {"format": FORMAT, "id": folder.name, "modalities": ["text", "image", "audio"]})
    return folder


def sound(pitch: float) -> bytes:
    """A second of a tone as WAV."""
    soundfile = pytest.importorskip("soundfile")
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(2 * np.pi * pitch * np.arange(16000) / 16000), 16000, format="WAV")
    return out.getvalue()


def ask(encoder: Any, payloads: list[Any]) -> list[Result]:
    envelopes = [Envelope(f"r{i}", encoder.held.active, time.time() + 60, p) for i, p in enumerate(payloads)]
    return asyncio.run(encoder(envelopes))


def check(folder: Path, encoder: Any, payloads: list[Any], values: list[Any]) -> None:
    model, featurizer = load_model(folder / "model"), Featurizer.load(folder / "featurizer")
    for result, value in zip(ask(encoder, payloads), values, strict=True):
        inputs = collate(encoder.modality, [value], pad_id=featurizer.settings.pad_id)
        with torch.inference_mode():
            alone = model.encode(encoder.modality, inputs)[0].numpy()
        assert result.value.dtype == np.float32
        np.testing.assert_allclose(result.value, alone, atol=1e-5)  # alone or in a batch, padded or not


def test_text(folder: Path):
    texts = ["red shoe", "a blue hat with a red shoe", "zzz"]
    check(folder, TextEncoder(folder), texts, Featurizer.load(folder / "featurizer").text(texts))


def test_image(folder: Path, shop: ModuleType):
    pictures = [shop.picture("red"), shop.picture("blue")]
    check(folder, ImageEncoder(folder), pictures, [Featurizer.load(folder / "featurizer").image(p) for p in pictures])


def test_audio(folder: Path):
    sounds = [sound(220), sound(880)]
    check(folder, AudioEncoder(folder), sounds, [Featurizer.load(folder / "featurizer").audio(s) for s in sounds])


def test_unreadable_media_fail_alone(folder: Path, shop: ModuleType):
    results = ask(ImageEncoder(folder), [b"junk", shop.picture("red"), b""])
    assert [result.error is None for result in results] == [False, True, False]
    assert results[0].error is not None
    assert (results[0].error.status, results[0].error.code) == (422, "unreadable_media")
    assert all(result.error for result in ask(ImageEncoder(folder), [b"junk"]))


def test_a_generation_without_the_modality_refuses_it(folder: Path, tmp_path: Path):
    (tmp_path / "silent").mkdir()
    write_json(tmp_path / "silent" / MANIFEST, {"format": FORMAT, "id": "silent", "modalities": ["text"]})
    encoder = AudioEncoder(folder)
    encoder.held._parts["silent"] = encoder.open(tmp_path / "silent")
    envelopes = [Envelope(name, name, time.time() + 60, sound(440)) for name in ("silent", folder.name)]
    refused, answered = asyncio.run(encoder(envelopes))
    assert refused.error is not None
    assert (refused.error.status, "no audio encoder" in refused.error.message) == (422, True)
    assert answered.error is None
