"""A block of product rows → the same rows with their features. Reads media, writes their content-addressed copies.

This is what every data worker runs; it takes and gives Arrow tables and knows nothing of Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.errors import MediaError
from fuserank.features.featurizer import Featurizer
from fuserank.features.layout import feature_schema
from fuserank.records.duplicates import picture_signature, text_signature
from fuserank.records.media import MediaSource, store
from fuserank.records.schema import PRODUCT

PROBLEM = pa.struct([("part", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass
class RowFeaturizer:
    """Decode, resize, tokenise, log-mel.

    Args:
        featurizer: fitted.
        media: folder that gets the media, `<2 hex>/<sha256>.<ext>`.
        images, sounds: where the rows' paths lie; None where the catalogue has none.
    """

    featurizer: Featurizer
    media: Path
    images: MediaSource | None
    sounds: MediaSource | None

    def apply(self, block: pa.Table) -> pa.Table:
        """STAGED product rows → PRODUCT and feature columns, `source`, `position` and `problems`, in the same order."""
        rows = block.to_pylist()
        texts = [self.featurizer.product_text(row) for row in rows]
        added: dict[str, list[Any]] = {
            name: []
            for name in ("images", "audio_name", "feature_image", "feature_audio", "problems", "picture_signature")
        }
        for row in rows:
            problems: list[dict[str, str]] = []
            names, pixels = self._pictures(row["image_paths"] or [], problems)
            sound, mel = self.sound(row["audio_path"], problems)
            added["images"].append(names)
            added["audio_name"].append(sound)
            added["feature_image"].append(None if pixels is None else pixels.tobytes())
            added["feature_audio"].append(None if mel is None else mel.tobytes())
            added["problems"].append(problems)
            added["picture_signature"].append(None if pixels is None else _signature(pixels))
        added["text_signature"] = [text_signature(text) for text in texts]
        kinds = {
            "images": pa.list_(pa.string()),
            "picture_signature": pa.uint64(),
            "audio_name": pa.string(),
            "problems": pa.list_(PROBLEM),
        }
        columns = {name: pa.array(values, kinds.get(name, pa.binary())) for name, values in added.items()}
        columns["tokens"] = pa.array(self.tokens(texts), pa.list_(pa.int32()))
        columns["feature_price"] = pa.array([self.featurizer.price(row["price"]) for row in rows], pa.float32())
        for name in block.column_names:
            if name not in ("image_paths", "audio_path"):
                columns[name] = block[name]
        return pa.table(columns)

    def tokens(self, texts: Sequence[str | None]) -> list[list[int] | None]:
        """Token ids of each text, None where there is no text."""
        there = iter(self.featurizer.text([text for text in texts if text]))
        return [next(there) if text else None for text in texts]

    def picture(self, path: str | None, problems: list[dict[str, str]]) -> tuple[str | None, np.ndarray | None]:
        """One picture's name in the media folder and its pixels; (None, None) and a problem if it cannot be used."""
        return self._medium(path, "image", self.images, self.featurizer.image, problems)

    def sound(self, path: str | None, problems: list[dict[str, str]]) -> tuple[str | None, np.ndarray | None]:
        """One sound's name in the media folder and its log-mel spectrogram, likewise."""
        return self._medium(path, "audio", self.sounds, self.featurizer.audio, problems)

    def _pictures(self, paths: list[str], problems: list[dict[str, str]]) -> tuple[list[str], np.ndarray | None]:
        """All readable pictures' names, and the pixels of the first of them, the main one."""
        found = [self.picture(path, problems) for path in paths]
        return [name for name, _ in found if name], next((pixels for _, pixels in found if pixels is not None), None)

    def _medium(self, path: str | None, part: str, source: MediaSource | None, decode: Any, problems: list) -> Any:
        if path is None or source is None:
            return None, None
        try:
            data = source.read(path)
            value = decode(data)
        except MediaError as error:
            reason, _, detail = error.message.partition(": ")
            problems.append({"part": part, "reason": reason, "detail": f"{path}: {detail}"})
            return None, None
        return store(self.media, data), value


def _signature(pixels: np.ndarray) -> int | None:
    """None also for pictures too small to tell apart."""
    return picture_signature(pixels) if pixels.shape[0] >= 8 and pixels.shape[1] >= 9 else None


def split_block(block: pa.Table, featurizer: Featurizer) -> tuple[pa.Table, pa.Table]:
    """A block as `RowFeaturizer` gives it → its PRODUCT table and its features table."""
    products = pa.table(
        [block["audio_name" if name == "audio" else name].cast(PRODUCT.field(name).type) for name in PRODUCT.names],
        schema=PRODUCT,
    )
    schema = feature_schema("product_id", featurizer.settings)
    renamed = {"image": "feature_image", "audio": "feature_audio", "price": "feature_price"}
    features = pa.table(
        [block[renamed.get(name, name)].cast(schema.field(name).type) for name in schema.names], schema=schema
    )
    return products, features
