"""One sound → what a Hugging Face audio model reads, by that model's own feature extractor.

Fetched once by `preprocess`; what it needs is kept in features.json, so that serving makes the same of a spoken query
without a network. Reads a hub name or folder, writes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fuserank.errors import ModelError


@dataclass(frozen=True)
class Extractor:
    """How samples become a model's input.

    Args:
        values: the extractor's own numbers, as JSON. name: of the input, `input_values` or `input_features`.
        shape: of the input, the same for every sound. span: samples that this shape stands for.
        masked: whether the model wants to be told which part is padding.
    """

    values: str
    name: str
    shape: tuple[int, ...]
    span: int
    masked: bool

    @classmethod
    def fetch(cls, model: str, seconds: float) -> "Extractor":
        """Of a hub name or folder, for sounds of at most `seconds`.

        Raises:
            ModelError: it cannot be loaded, or its inputs are of no size.
        """
        from transformers import AutoFeatureExtractor  # seconds to import, and only wanted here

        try:
            found = AutoFeatureExtractor.from_pretrained(model)
            rate = int(found.sampling_rate)
            made = found(np.random.default_rng(0).normal(size=round(seconds * rate)), sampling_rate=rate)
            name = next(n for n in ("input_values", "input_features") if n in made)
        except (
            Exception
        ) as error:  # OSError, ValueError, AttributeError, StopIteration, and its hub client's own errors
            detail = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
            raise ModelError(
                f"encoders.audio.model: no feature extractor of {model!r} can be loaded ({detail}).",
                "Give a hub name while online, or a folder with preprocessor_config.json and model.safetensors.",
            ) from None
        values = json.dumps(json.loads(found.to_json_string()), sort_keys=True)
        span = int(getattr(found, "n_samples", 0)) or round(seconds * rate)  # Whisper's input is always as long
        return cls(values, name, np.asarray(made[name][0]).shape, span, bool(found.return_attention_mask))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Extractor":
        """From what JSON made of one."""
        return cls(**{**values, "shape": tuple(values["shape"])})

    @property
    def rate(self) -> int:
        """Hz of the samples it takes."""
        return int(json.loads(self.values)["sampling_rate"])

    @property
    def type(self) -> np.dtype:
        """Of one sound's features: its own length in samples, and the model's input."""
        return sound_type(self.shape)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """float32 [S] at `rate`, not padded → one value of `type`, padded with 0."""
        made = _load(self.values)(samples, sampling_rate=self.rate)
        found = np.asarray(made[self.name][0], np.float32)[tuple(slice(size) for size in self.shape)]
        out = np.zeros((), self.type)
        out["length"] = min(len(samples), self.span)
        out["values"][tuple(slice(size) for size in found.shape)] = found
        return out


def sound_type(shape: tuple[int, ...]) -> np.dtype:
    """int32 `length` in samples, and float16 `values` of that shape."""
    return np.dtype([("length", np.int32), ("values", np.float16, shape)])


@lru_cache(maxsize=2)
def _load(values: str) -> Any:
    from transformers.models.auto.feature_extraction_auto import feature_extractor_class_from_name

    held = json.loads(values)
    kind: Any = feature_extractor_class_from_name(held["feature_extractor_type"])
    return kind.from_dict(held)
