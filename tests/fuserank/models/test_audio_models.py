"""Hugging Face audio models: extracted, encoded, adapted, saved and loaded as transformers itself would compute it."""

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from torch import nn

from fuserank import config
from fuserank.artifacts import write_json
from fuserank.errors import ConfigError, ModelError
from fuserank.features.audio import read_audio
from fuserank.features.batch import collate
from fuserank.features.extractor import Extractor
from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.layout import feature_schema, feature_writer
from fuserank.features.table import FeatureTable
from fuserank.models.adapt import adapt
from fuserank.models.build import build_model
from fuserank.models.checkpoint import load_model, save_model
from fuserank.models.encoders.hugging_face_audio import HuggingFaceAudioEncoder
from fuserank.models.fused import FusedModel
from fuserank.retrieval.generation import FORMAT, MANIFEST
from serve.audio_encoder import AudioEncoder as AudioDeployment
from serve.envelope import Envelope

NAMES = ("wav2vec2", "whisper", "ast")
SECONDS, RATE = 1.0, 8000


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of three kinds, saved as their authors would."""
    folder, size = tmp_path_factory.mktemp("audio"), {"hidden_size": 16, "intermediate_size": 24}
    torch.manual_seed(0)
    waves = transformers.Wav2Vec2Config(
        num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 4),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
        do_stable_layer_norm=True, layerdrop=0.5, mask_time_prob=0.5, **size,
    )  # fmt: skip
    transformers.Wav2Vec2Model(waves).save_pretrained(folder / "wav2vec2")
    transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=RATE, do_normalize=True, return_attention_mask=True
    ).save_pretrained(folder / "wav2vec2")
    whisper = transformers.WhisperConfig(
        d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=24, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=24, vocab_size=30, num_mel_bins=8, max_source_positions=100,
        max_target_positions=8, encoder_layerdrop=0.5, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    transformers.WhisperModel(whisper).save_pretrained(folder / "whisper")
    transformers.WhisperFeatureExtractor(
        feature_size=8, sampling_rate=RATE, hop_length=80, chunk_length=2, n_fft=200
    ).save_pretrained(folder / "whisper")
    spectrogram = transformers.ASTConfig(
        num_hidden_layers=1, num_attention_heads=2, max_length=64, num_mel_bins=16, patch_size=8, frequency_stride=8,
        time_stride=8, **size,
    )  # fmt: skip
    transformers.ASTModel(spectrogram).save_pretrained(folder / "ast")
    transformers.ASTFeatureExtractor(sampling_rate=RATE, max_length=64, num_mel_bins=16).save_pretrained(folder / "ast")
    return folder


def sound(pitch: float, seconds: float, rate: int = 16000) -> bytes:
    """A tone that fades, as WAV."""
    soundfile = pytest.importorskip("soundfile")
    at, out = np.arange(round(seconds * rate)) / rate, io.BytesIO()
    soundfile.write(out, 0.3 * np.exp(-at) * np.sin(2 * np.pi * pitch * at), rate, format="WAV")
    return out.getvalue()


SOUNDS = [(220.0, 0.4), (660.0, 0.9), (440.0, 3.0)]


def featurizer_of(model: Path) -> Featurizer:
    settings = FeatureSettings(seconds=SECONDS, extractor=Extractor.fetch(str(model), SECONDS))
    return Featurizer.fit(["red"], [], settings)


def build(model: Path, featurizer: Featurizer, **options: Any) -> FusedModel:
    nothing = dict.fromkeys(("text", "image", "price", "attributes", "recommender"))
    values = {"encoders": {**nothing, "audio": {"model": str(model), **options}}, "fusion": {"width": 16}}
    experiment, held = config.validate(values), featurizer.settings.extractor
    assert held is not None
    listening = {"span": held.span, "masked": held.masked}
    return build_model(experiment.encoders, experiment.fusion, 0, 0, 0, [], listening=listening)


def reference(model: Path, name: str, pitch: float, seconds: float) -> torch.Tensor:
    """One sound by transformers alone: its extractor, its model, and the mean over what is no padding."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
    samples = read_audio(sound(pitch, seconds), RATE, SECONDS)
    whole = transformers.AutoModel.from_pretrained(model).eval()
    with torch.no_grad():
        if name == "wav2vec2":
            made = extractor(samples, sampling_rate=RATE, return_tensors="pt")
            return whole(made["input_values"].half().float()).last_hidden_state[0].mean(0)  # alone: no padding at all
        if name == "ast":
            made = extractor(samples, sampling_rate=RATE, return_tensors="pt")
            return whole(made["input_values"].half().float()).pooler_output[0]
        made = extractor(samples, sampling_rate=RATE, return_tensors="pt")
        hidden = whole.encoder(made["input_features"].half().float()).last_hidden_state[0]
        return hidden[: -(-len(samples) * 100 // (2 * RATE))].mean(0)  # 100 steps are two seconds


@pytest.mark.parametrize("name", NAMES)
def test_preprocess_encode_save_load(folder: Path, name: str, tmp_path: Path) -> None:
    featurizer = featurizer_of(folder / name)
    extractor = featurizer.settings.extractor
    assert extractor is not None
    assert extractor.rate == RATE  # the model's, not preprocess.audio.rate
    values = [featurizer.audio(sound(*one)) for one in SOUNDS]
    assert [int(value["length"]) for value in values] == [3200, 7200, 8000]
    schema = feature_schema("product_id", featurizer.settings)
    rows = [{"product_id": str(n), "audio": value.tobytes()} for n, value in enumerate(values)]
    with feature_writer(tmp_path / "f.parquet", schema) as file:
        file.write_table(pa.Table.from_pylist([rows[0], {"product_id": "silent"}, *rows[1:]], schema))
    inputs = FeatureTable.open(tmp_path / "f.parquet").batch([3, 0, 2], "audio")
    for key, tensor in collate("audio", [values[2], values[0], values[1]]).items():
        assert torch.equal(inputs[key], tensor)
    model = build(folder / name, featurizer).eval()
    with torch.no_grad():
        found = model.hidden("audio", inputs)
        for row, one in enumerate((SOUNDS[2], SOUNDS[0], SOUNDS[1])):
            torch.testing.assert_close(found[row], reference(folder / name, name, *one), atol=2e-3, rtol=1e-3)
        assert (found[0] - found[1]).abs().max() > 0.01
        before = model.encode("audio", inputs)
        save_model(model, tmp_path / "model")
        featurizer.save(tmp_path / "featurizer")
        loaded, again = load_model(tmp_path / "model"), Featurizer.load(tmp_path / "featurizer")
        assert torch.equal(loaded.encode("audio", inputs), before)
    assert again.settings == featurizer.settings
    assert again.audio(sound(*SOUNDS[0])).tobytes() == values[0].tobytes()
    if name == "whisper":
        assert not any("decoder" in key for key in model.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_spoken_query_is_encoded_as_offline(folder: Path, name: str, tmp_path: Path) -> None:
    featurizer = featurizer_of(folder / name)
    model = build(folder / name, featurizer).eval()
    save_model(model, tmp_path / "model")
    featurizer.save(tmp_path / "featurizer")
    write_json(tmp_path / MANIFEST, {"format": FORMAT, "id": tmp_path.name, "modalities": ["audio"]})
    deployment = AudioDeployment(tmp_path)
    payloads = [sound(*SOUNDS[0]), b"junk", sound(*SOUNDS[1])]
    asked = [Envelope(str(n), deployment.held.active, time.time() + 60, one) for n, one in enumerate(payloads)]
    answers = asyncio.run(deployment(asked))
    assert [answer.error is None for answer in answers] == [True, False, True]
    with torch.no_grad():
        expected = model.encode(
            "audio", collate("audio", [featurizer.audio(payloads[0]), featurizer.audio(payloads[2])])
        )
    for answer, vector in zip((answers[0], answers[2]), expected.numpy(), strict=True):
        np.testing.assert_allclose(answer.value, vector, atol=1e-5)


@pytest.mark.parametrize("kind", ["frozen", "full", "lora", "adalora", "adapter"])
@pytest.mark.parametrize("name", NAMES)
def test_adaptations(folder: Path, name: str, kind: str, tmp_path: Path) -> None:
    featurizer = featurizer_of(folder / name)
    model = build(folder / name, featurizer, adaptation=kind)
    inputs = collate("audio", [featurizer.audio(sound(*one)) for one in SOUNDS])
    encoder = model.encoders["audio"].eval()
    before = encoder(**inputs).detach()
    adaptation = adapt(encoder, kind, config.Adapter(rank=2, width=4), 10)
    torch.testing.assert_close(encoder(**inputs).detach(), before, atol=1e-5, rtol=1e-5)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert bool(trained) == (kind != "frozen")
    if trained:
        optimizer, target = torch.optim.AdamW(trained, 0.05), torch.randn(before.shape)
        for _ in range(5):
            optimizer.zero_grad()
            (encoder(**inputs) - target).square().mean().backward()
            optimizer.step()
        assert not torch.allclose(encoder(**inputs), before, atol=1e-4)
    after = encoder(**inputs).detach()
    adaptation.merge()
    if adaptation.description is not None:
        model.description["encoders"]["audio"]["adapter"] = adaptation.description
    save_model(model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path).hidden("audio", inputs), after, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_training_draws_nothing_from_the_process(folder: Path, name: str) -> None:
    """SpecAugment and layer drop would: a row must be met alike on any worker and after any restart."""
    featurizer = featurizer_of(folder / name)
    encoder = build(folder / name, featurizer).encoders["audio"].train()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    encoder.backbone.config.activation_dropout = 0.0  # type: ignore[union-attr]
    for layer in [m for m in encoder.modules() if hasattr(m, "dropout") and isinstance(m.dropout, float)]:
        layer.dropout = layer.activation_dropout = layer.attention_dropout = 0.0  # type: ignore[assignment]
    inputs = collate("audio", [featurizer.audio(sound(*one)) for one in SOUNDS])
    first = encoder(**inputs)
    for _ in range(6):
        assert torch.equal(encoder(**inputs), first)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        Extractor.fetch("someone/no-such-model", SECONDS)
    assert "someone/no-such-model" in error.value.message
    assert "folder" in error.value.hint
    with pytest.raises(ModelError, match="someone/no-such-model"):
        HuggingFaceAudioEncoder({}, 8000, False, "someone/no-such-model")
    audio = {"model": str(folder / "ast")}
    with pytest.raises(ConfigError, match=r"pretrain\.audio\.epochs to 0"):
        config.validate({"encoders": {"audio": audio}, "pretrain": {"audio": {"epochs": 1}}})
    with pytest.raises(ConfigError, match="lora"):
        config.validate({"encoders": {"audio": {"adaptation": "lora"}}})
    experiment = config.validate({"encoders": {"audio": audio}})
    with pytest.raises(ModelError, match="not made for"):
        build_model(experiment.encoders, experiment.fusion, 30, 8, 8, [])
