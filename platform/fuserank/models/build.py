"""Builds the fused model from the config and the numbers of the features, or again from its own description."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fuserank import config
from fuserank.errors import ModelError
from fuserank.models.adapt import add_bottlenecks
from fuserank.models.encoders.attributes import AttributesEncoder
from fuserank.models.encoders.audio import AudioEncoder
from fuserank.models.encoders.hugging_face_audio import HuggingFaceAudioEncoder
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.price import PriceEncoder
from fuserank.models.encoders.text import TextEncoder, small_bert
from fuserank.models.fused import FusedModel


def build_model(
    encoders: config.Encoders,
    fusion: config.Fusion,
    vocabulary: int,
    tokens: int,
    mels: int,
    boundaries: list[float],
    attributes: int = 0,
    listening: Mapping[str, Any] | None = None,
    products: int = 0,
) -> FusedModel:
    """A new model, pretrained weights loaded where the config names them.

    Args:
        vocabulary: number of token ids; tokens: longest text; mels: mel bands; boundaries: log-price quantiles;
            attributes: number of known attribute values; a shop without any gets no attributes encoder.
            listening: `span` and `masked` of the features of a Hugging Face audio model.
            products: rows of the catalogue, for the recommender's ids.

    Raises:
        ModelError: a named model or weights cannot be loaded.
    """
    modules: dict[str, nn.Module] = {}
    described: dict[str, dict[str, Any]] = {}
    if (text := encoders.text) is not None:
        small = small_bert(vocabulary, text.layers, text.hidden, text.heads, tokens)
        modules["text"] = TextEncoder(small, text.pooling, text.model)
        described["text"] = {"architecture": modules["text"].architecture, "pooling": text.pooling}
    if (image := encoders.image) is not None:
        modules["image"] = ImageEncoder(image.model, image.weights, channels=image.channels)
        described["image"] = {
            "model": image.model,
            "channels": image.channels,
            "architecture": modules["image"].architecture,
        }
    if (audio := encoders.audio) is not None:
        if audio.model is None:
            modules["audio"] = AudioEncoder(mels, audio.channels)
            described["audio"] = {"mels": mels, "channels": audio.channels}
        else:
            modules["audio"] = borrowed = _audio_model(audio.model, listening)
            described["audio"] = {"architecture": borrowed.architecture, **(listening or {})}
    if (price := encoders.price) is not None:
        modules["price"] = PriceEncoder(boundaries, price.frequencies)
        described["price"] = {"boundaries": boundaries, "frequencies": price.frequencies}
    if (known := encoders.attributes) is not None and attributes > 0:
        modules["attributes"] = AttributesEncoder(attributes, known.hidden)
        described["attributes"] = {"vocabulary": attributes, "hidden": known.hidden}
    return _assemble(modules, described, encoders, fusion, products)


def _audio_model(name: str, listening: Mapping[str, Any] | None) -> HuggingFaceAudioEncoder:
    if listening is None:
        raise ModelError(f"the features were not made for audio model {name!r}.", "Run `fuserank preprocess` again.")
    return HuggingFaceAudioEncoder({}, **listening, pretrained=name)


def headless_model(encoders: config.Encoders, fusion: config.Fusion, widths: Mapping[str, int]) -> FusedModel:
    """A new model without encoders, for training on their cached outputs of these widths."""
    modules: dict[str, nn.Module] = {m: Absent(width) for m, width in widths.items()}
    return _assemble(modules, {}, encoders, fusion)


def _assemble(
    modules: dict[str, nn.Module],
    described: dict[str, Any],
    encoders: config.Encoders,
    fusion: config.Fusion,
    products: int = 0,
) -> FusedModel:
    numbers = None
    if (told := encoders.recommender) is not None:
        numbers = {**told.model_dump(exclude={"ids"}), "width": fusion.width, "products": products if told.ids else 0}
    description = {"encoders": described, "width": fusion.width, "kind": fusion.kind, "recommender": numbers}
    description["projection_layers"] = fusion.projection_layers
    return FusedModel(modules, fusion.width, fusion.kind, description, numbers, fusion.projection_layers)


def rebuild_model(description: dict[str, Any], absent: Mapping[str, int] | None = None) -> FusedModel:
    """The model of that description with fresh weights; nothing is fetched from anywhere.

    Args:
        absent: modality → width of encoders that are not to be built, because this process never runs them.
    """
    parts, without = description["encoders"], absent or {}
    makers: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
        "text": lambda part: TextEncoder(part["architecture"], part["pooling"]),
        "image": lambda part: ImageEncoder(part["model"], None, part["architecture"], part["channels"]),
        "audio": lambda part: (HuggingFaceAudioEncoder if "architecture" in part else AudioEncoder)(**_own(part)),
        "price": lambda part: PriceEncoder(**part),
        "attributes": lambda part: AttributesEncoder(**part),
    }
    modules = {m: Absent(without[m]) if m in without else make(parts[m]) for m, make in makers.items() if m in parts}
    for modality, module in modules.items():
        if "adapter" in parts[modality] and modality not in without:
            add_bottlenecks(module.backbone, **parts[modality]["adapter"])  # type: ignore[arg-type]
    layers = description.get("projection_layers", 1)
    return FusedModel(
        modules, description["width"], description["kind"], description, description["recommender"], layers
    )


def _own(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "adapter"}


class Absent(nn.Module):
    """Holds the place of an encoder that this process never runs."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
