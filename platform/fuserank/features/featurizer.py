"""Everything between a record and a model's input, fitted once and used alike offline and online.

Reads and writes a folder: `tokenizer/` (a Hugging Face fast tokenizer) and `features.json` (sizes, rates, price edges,
known attribute values).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fuserank.errors import ModelError
from fuserank.features import audio, image, price, text
from fuserank.features.attributes import AttributeVocabulary
from fuserank.features.extractor import Extractor

FILE = "features.json"


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features. Pixels are (height, width), rate is Hz, price edges are natural logs.

    Raises:
        ConfigError: a text field that does not exist or holds labels.
    """

    text_fields: tuple[str, ...] = ("title", "brand", "category", "description")
    word_fields: tuple[str, ...] | None = None  # what word search reads; None: the same
    text_tokens: int = 32
    image_size: tuple[int, int] = (48, 48)
    max_pixels: int = 40_000_000
    rate: int = 16000
    seconds: float = 1.6
    mels: int = 40
    extractor: Extractor | None = None  # of a Hugging Face audio model, in place of the log-mel spectrogram
    price_edges: tuple[float, ...] = ()
    attributes: AttributeVocabulary = field(default_factory=AttributeVocabulary)
    pad_id: int = 0
    mask_id: int | None = None
    vocabulary: int = 0
    special_tokens: dict[str, str] = field(default_factory=dict)  # of a borrowed tokenizer, by role

    def __post_init__(self) -> None:
        text.check_fields(self.text_fields)
        text.check_fields(self.word_fields or (), "word_fields")

    @property
    def frames(self) -> int:
        """Length of the log-mel spectrogram's time axis."""
        return audio.frames(self.rate, self.seconds)


class Featurizer:
    """Turns text, pictures, sounds, prices and attributes into arrays. Small, picklable, without torch."""

    def __init__(self, tokenizer: Tokenizer, settings: FeatureSettings):
        tokenizer.no_padding()
        tokenizer.enable_truncation(settings.text_tokens)
        self._tokenizer = tokenizer
        self.settings = settings

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        log_prices: Iterable[float],
        settings: FeatureSettings,
        *,
        tokenizer: str | None = None,
        vocabulary: int = 6000,
        price_quantiles: int = 16,
    ) -> "Featurizer":
        """Train the tokenizer and the price edges on training texts (products and queries) and training prices.

        Args:
            tokenizer: a Hugging Face tokenizer by name or folder, instead of training one.
            vocabulary: largest size of a trained tokenizer.

        Raises:
            ModelError: `tokenizer` cannot be loaded.
        """
        values: dict[str, Any] = {}
        if tokenizer is None:
            found = text.train_tokenizer(texts, vocabulary)
            values = {"pad_id": found.token_to_id(text.PAD), "mask_id": found.token_to_id(text.MASK)}
        else:
            found, values["pad_id"], values["mask_id"], values["special_tokens"] = text.fetch_tokenizer(tokenizer)
        edges = tuple(price.quantile_edges(log_prices, price_quantiles))
        values |= {"vocabulary": found.get_vocab_size(), "price_edges": edges}
        return cls(found, replace(settings, **values))

    def save(self, folder: Path) -> None:
        """Write `tokenizer/` and `features.json` into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text.save_tokenizer(
            self._tokenizer, folder / "tokenizer", self.settings.text_tokens, self.settings.special_tokens
        )
        (folder / FILE).write_text(json.dumps(asdict(self.settings), indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Featurizer":
        """Read what `save` wrote.

        Raises:
            ModelError: the folder does not hold it.
        """
        try:
            values = json.loads((folder / FILE).read_text(encoding="utf-8"))
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
            for name in ("text_fields", "word_fields", "image_size", "price_edges"):
                values[name] = None if values.get(name) is None else tuple(values[name])
            if "attributes" in values:  # generations of versions that knew none have none
                values["attributes"] = AttributeVocabulary.of(values["attributes"])
            if values.get("extractor"):
                values["extractor"] = Extractor.of(values["extractor"])
            return cls(tokenizer, FeatureSettings(**values))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise ModelError(f"no usable featurizer in {folder}: {error}", "Run `fuserank preprocess` again.") from None

    def text(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to `text_tokens`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]

    def product_text(self, product: Mapping[str, Any]) -> str:
        """A PRODUCT row's text as the tokenizer is to see it; "" if it has none."""
        return text.product_text(product, self.settings.text_fields)

    def product_words(self, product: Mapping[str, Any]) -> str:
        """A PRODUCT row's text as word search is to see it; "" if it has none."""
        return text.product_text(product, self.settings.word_fields or self.settings.text_fields)

    def image(self, data: bytes) -> np.ndarray:
        """Encoded picture → uint8 [H, W, 3] RGB; raises MediaError."""
        return image.decode_image(data, self.settings.image_size, self.settings.max_pixels)

    def audio(self, data: bytes) -> np.ndarray:
        """Encoded sound → float16 [mels, frames] natural-log mel power, or one value of the audio model's
        `extractor.type`; raises MediaError."""
        if (extractor := self.settings.extractor) is not None:
            return extractor.features(audio.read_audio(data, extractor.rate, self.settings.seconds))
        samples = audio.decode_audio(data, self.settings.rate, self.settings.seconds)
        return audio.log_mel(samples, self.settings.rate, self.settings.mels)

    def price(self, amount: float | Decimal | None) -> float | None:
        """Natural logarithm of the price, None if missing or not above 0."""
        return price.log_price(amount)

    def attributes(self, product: Mapping[str, Any]) -> np.ndarray | None:
        """A PRODUCT row's known attribute values, int32 [width] ids padded with 0; None if there is none."""
        return self.settings.attributes.ids(product)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids → readable text, special tokens left out."""
        return self._tokenizer.decode(list(ids))
