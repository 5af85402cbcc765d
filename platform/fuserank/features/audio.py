"""One encoded sound → float16 log-mel spectrogram [mels, frames]. Reads bytes, writes nothing.

Whatever libsndfile decodes (wav, flac, ogg, mp3), any rate, any number of channels. NumPy only: importing torch in
every data worker would cost seconds and half a gigabyte each for transforms this small.
"""

import io
import math
from functools import lru_cache

import numpy as np

from fuserank.errors import MediaError

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
SILENCE = 1e-4  # largest amplitude of what counts as no sound at all: −80 dB of full scale
FLOOR = 1e-6  # mel power below it counts as silence; its logarithm fits float16
MAX_RATE = 192_000  # Hz; an odd rate far above would need filters of a gigabyte


def frames(rate: int, seconds: float) -> int:
    """How many frames `log_mel` makes of `seconds` of sound."""
    return 1 + round(rate * seconds) // round(rate * HOP_SECONDS)


def decode_audio(data: bytes, rate: int, seconds: float) -> np.ndarray:
    """`read_audio`, padded with silence: float32 [rate * seconds]; raises MediaError."""
    found = read_audio(data, rate, seconds)
    return np.pad(found, (0, round(rate * seconds) - len(found)))


def read_audio(data: bytes, rate: int, seconds: float) -> np.ndarray:
    """Decode the first `seconds`, mix to mono, resample to `rate`.

    Returns:
        float32 [S], S at most rate * seconds.

    Raises:
        MediaError: "unreadable sound: …", "empty sound: …" or "silent sound: …".
    """
    import soundfile  # loads libsndfile; only where there is sound

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            given = sound.samplerate
            if not 0 < given <= MAX_RATE:
                raise MediaError(f"unreadable sound: sampling rate {given}")
            samples = sound.read(math.ceil((seconds + 0.1) * given), dtype="float32", always_2d=True)
    except MediaError:
        raise
    except Exception as error:  # libsndfile's errors are RuntimeErrors, a damaged header can give others
        detail = getattr(error, "error_string", error)  # without the stream's address, which differs from run to run
        raise MediaError(f"unreadable sound: {type(error).__name__} {detail}") from None
    if len(samples) == 0:
        raise MediaError("empty sound: no samples")
    mono = np.nan_to_num(samples.mean(axis=1), posinf=1.0, neginf=-1.0)
    if not float(np.abs(samples).max()) >= SILENCE:
        raise MediaError(f"silent sound: nothing above {SILENCE:g} of full scale in the first {seconds:g} s")
    return resample(mono, given, rate)[: round(rate * seconds)]


def resample(samples: np.ndarray, given: int, wanted: int) -> np.ndarray:
    """Band-limited resampling by a polyphase Kaiser-windowed sinc (Smith, Digital Audio Resampling).

    Args:
        samples: float32 [S] at `given` Hz.

    Returns:
        float32 [ceil(S * wanted / given)] at `wanted` Hz.
    """
    if given == wanted:
        return samples
    common = math.gcd(given, wanted)
    up, down = wanted // common, given // common
    bank, half = _sinc_bank(up, down)  # [up, 2*half]
    out = np.arange(math.ceil(len(samples) * up / down))
    start = out * down // up + 1  # first sample right of the output's time, in the padded signal's shifted count
    padded = np.pad(samples, (half, half + 1))
    result = np.empty(len(out), np.float32)
    for begin in range(0, len(out), 16384):  # bounds the gathered windows' memory
        part = slice(begin, begin + 16384)
        windows = padded[start[part, None] + np.arange(2 * half)]
        result[part] = np.einsum("nt,nt->n", windows, bank[out[part] * down % up])
    return result


@lru_cache(maxsize=8)
def _sinc_bank(up: int, down: int, zeros: int = 16, beta: float = 8.6) -> tuple[np.ndarray, int]:
    cutoff = min(1.0, up / down) * 0.96  # of the given Nyquist frequency; the rest is the transition band
    half = math.ceil(zeros / cutoff)
    phase = np.arange(up)[:, None] / up  # the output's time after its left neighbour, in given samples
    distance = np.arange(1 - half, half + 1)[None, :] - phase
    window = np.kaiser(4096, beta)
    shape = np.interp(distance / half, np.linspace(-1, 1, 4096), window, left=0, right=0)
    bank = cutoff * np.sinc(cutoff * distance) * shape
    return (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32), half


@lru_cache(maxsize=8)
def mel_filters(rate: int, mels: int, fft: int) -> np.ndarray:
    """Triangular filters, equally wide in mel = 2595 log10(1 + f/700) (O'Shaughnessy 1987, as in HTK), height 1.

    Returns:
        float64 [mels, fft // 2 + 1].
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(fft, 1 / rate)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(samples: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """Natural logarithm of mel power: Hann windows of 25 ms every 10 ms, centred, edges reflected.

    Args:
        samples: float32 [S].

    Returns:
        float16 [mels, 1 + S // hop].
    """
    width, hop = round(rate * WINDOW_SECONDS), round(rate * HOP_SECONDS)
    fft = 1 << (width - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    left = (fft - width) // 2
    window = np.pad(hann, (left, fft - width - left))
    padded = np.pad(samples.astype(np.float64), fft // 2, mode="reflect" if len(samples) > fft // 2 else "constant")
    framed = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop][: 1 + len(samples) // hop]
    power = np.abs(np.fft.rfft(framed * window, axis=1)) ** 2
    mel = mel_filters(rate, mels, fft) @ power.T
    return np.log(np.maximum(mel, FLOOR)).astype(np.float16)
