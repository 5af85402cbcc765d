"""Log-mel spectrograms against torch.stft with its own filterbank, resampling against the true signal."""

import io
import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import MediaError
from fuserank.features.audio import decode_audio, frames, log_mel, mel_filters, resample
from fuserank.features.featurizer import FeatureSettings, Featurizer


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind)
    return out.getvalue()


def tone(frequency: float, rate: int, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def independent_log_mel(samples: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """torch.stft and filters built line by line from their definition."""
    stft = torch.stft(
        torch.from_numpy(samples).double(), n_fft=512, hop_length=160, win_length=400,
        window=torch.hann_window(400, dtype=torch.float64), center=True, pad_mode="reflect", return_complex=True,
    )  # fmt: skip
    power = stft.abs().numpy() ** 2
    mel = lambda f: 2595 * math.log10(1 + f / 700)  # noqa: E731
    edges = [700 * (10 ** (mel(rate / 2) * i / (mels + 1) / 2595) - 1) for i in range(mels + 2)]
    filters = np.zeros((mels, 257))
    for band in range(mels):
        low, middle, high = edges[band : band + 3]
        for k in range(257):
            frequency = k * rate / 512
            if low < frequency <= middle:
                filters[band, k] = (frequency - low) / (middle - low)
            elif middle < frequency < high:
                filters[band, k] = (high - frequency) / (high - middle)
    return np.log(np.maximum(filters @ power, 1e-6))


def test_log_mel() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 25600).astype(np.float32) + tone(440, 16000, 1.6)
    found = log_mel(samples, 16000, 40)
    assert found.dtype == np.float16
    assert found.shape == (40, frames(16000, 1.6)) == (40, 161)
    assert np.abs(found - independent_log_mel(samples, 16000, 40)).max() < 0.01


def test_a_tone_is_in_its_band() -> None:
    edges = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + 8000 / 700), 42) / 2595) - 1)
    for frequency in (300, 1000, 4000):
        loudest = log_mel(tone(frequency, 16000, 1.0), 16000, 40).astype(float).mean(axis=1).argmax()
        assert edges[loudest] < frequency < edges[loudest + 2]
    assert mel_filters(16000, 40, 512).max() <= 1


@pytest.mark.parametrize("given_", [8000, 11025, 22050, 44100, 48000, 16001])
def test_resample(given_: int) -> None:
    found = resample(tone(1000, given_, 1.0), given_, 16000)
    wanted = tone(1000, 16000, 1.0)
    assert abs(len(found) - 16000) <= 1
    inner = slice(500, 15500)
    assert np.abs(found[inner] - wanted[inner]).max() < 2e-3


def test_resample_removes_what_would_alias() -> None:
    found = resample(tone(15000, 48000, 1.0), 48000, 16000)
    assert np.abs(found[500:15500]).max() < 1e-3


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_formats_cut_and_pad(kind: str) -> None:
    sound = tone(500, 44100, 1.0)
    stereo = np.stack([sound, sound], axis=1)
    samples = decode_audio(encoded(stereo, 44100, kind), 16000, 1.6)
    assert samples.shape == (25600,)
    assert np.abs(samples[2000:14000]).max() == pytest.approx(0.5, abs=0.05)
    assert np.abs(samples[18000:]).max() < 1e-3
    assert decode_audio(encoded(stereo, 44100, kind), 16000, 0.5).shape == (8000,)


def test_mono_is_the_mean() -> None:
    left = tone(500, 16000, 0.5)
    samples = decode_audio(encoded(np.stack([left, -left], axis=1), 16000), 16000, 0.5)
    assert np.abs(samples).max() < 1e-3


def test_refusals() -> None:
    featurizer = Featurizer.fit(["a"], [], FeatureSettings())
    whole = encoded(tone(500, 16000, 0.2), 16000)
    for broken in (b"", b"no sound", whole[:20]):
        with pytest.raises(MediaError, match="unreadable sound"):
            featurizer.audio(broken)
    with pytest.raises(MediaError, match="empty sound"):
        featurizer.audio(encoded(np.zeros(0, np.float32), 16000))
    with pytest.raises(MediaError, match="silent sound"):
        featurizer.audio(encoded(np.zeros(1600, np.float32), 16000))
    click = np.zeros(1600, np.float32)
    click[800] = 0.01
    short = featurizer.audio(encoded(click, 16000))
    assert short.shape == (40, 161)
    assert np.isfinite(short).all()


WHOLE = {kind: encoded(tone(500, 16000, 0.1), 16000, kind) for kind in ("WAV", "FLAC", "OGG")}


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 200), st.binary(min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_damage_is_refused_or_decoded(kind: str, at: int, damage: bytes) -> None:
    data = WHOLE[kind][:at] + damage + WHOLE[kind][at + len(damage) :]
    try:
        samples = decode_audio(data, 16000, 0.1)
    except MediaError:
        return
    assert samples.shape == (1600,)
    assert np.isfinite(samples).all()
