"""A block of product rows → the same rows with their features. Reads media, writes their content-addressed copies.

This is what every data worker runs; it takes and gives Arrow tables and knows nothing of Ray.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.errors import MediaError
from fuserank.features.earlier import Earlier
from fuserank.features.featurizer import Featurizer
from fuserank.features.layout import CARRIED, KEY, PROBLEM, part_schema
from fuserank.records.duplicates import picture_signature, text_signature
from fuserank.records.media import MediaSource, media_path, store
from fuserank.records.schema import MODALITIES, PRODUCT

TOLD = pa.schema(
    [
        *PRODUCT,
        pa.field("source", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("problems", pa.list_(PROBLEM)),
        pa.field("text_signature", pa.binary()),
        pa.field("picture_signature", pa.uint64()),
        *(pa.field(f"has_{modality}", pa.bool_()) for modality in MODALITIES),
        pa.field("reused", pa.bool_()),
    ]
)
"""What a worker tells of its rows: all but the features themselves, which may be large."""


@dataclass
class RowFeaturizer:
    """Decode, resize, tokenise, log-mel.

    Args:
        featurizer: fitted.
        media: folder that gets the media, `<2 hex>/<sha256>.<ext>`.
        images, sounds: where the rows' paths lie; None where the catalogue has none.
        earlier: rows of an earlier run, to take instead of making them again.
        code: what changes with the code that makes a row.
    """

    featurizer: Featurizer
    media: Path
    images: MediaSource | None
    sounds: MediaSource | None
    earlier: Earlier | None = None
    code: str = ""

    def apply(self, block: pa.Table) -> tuple[pa.Table, pa.Table]:
        """STAGED product rows → TOLD and their features (layout.part_schema), both in the same order."""
        rows = block.to_pylist()
        texts = [self.featurizer.product_text(row) for row in rows]
        keys = [self._key(row, text) for row, text in zip(rows, texts, strict=True)]
        found = self._earlier(keys)
        made = [
            known or self._make(row, text) for known, row, text in zip(found, rows, texts, strict=True)
        ]  # one dict a row, named as in CARRIED
        schema = part_schema(self.featurizer.settings)
        columns = {name: pa.array([one[name] for one in made], schema.field(name).type) for name in CARRIED}
        columns |= {
            "product_id": block["product_id"],
            "key": pa.array(keys, pa.binary(KEY)),
            "tokens": pa.array(self.tokens(texts), pa.list_(pa.int32())),
            "price": pa.array([self.featurizer.price(row["price"]) for row in rows], pa.float32()),
        }
        known = [self.featurizer.attributes(row) for row in rows]
        columns["attributes"] = pa.array([None if ids is None else ids.tobytes() for ids in known], pa.binary())
        part = pa.table([columns[name] for name in schema.names], schema=schema)
        told = {name: block[name] for name in TOLD.names if name in block.column_names}
        told |= {"images": part["images"], "audio": part["sound"], "reused": pa.array([bool(one) for one in found])}
        told |= {name: part[name] for name in ("problems", "text_signature", "picture_signature")}
        for modality in MODALITIES:
            told[f"has_{modality}"] = part["tokens" if modality == "text" else modality].is_valid()
        return pa.table([told[field.name].cast(field.type) for field in TOLD], schema=TOLD), part

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

    def _key(self, row: dict[str, Any], text: str) -> bytes:
        """Hash of everything that decides the CARRIED values; media count by size and checksum or time."""
        shapes = self.featurizer.settings
        media = [(path, _stamp(self.images, path)) for path in row["image_paths"] or []]
        sound = (row["audio_path"], _stamp(self.sounds, row["audio_path"]))
        sizes = (shapes.image_size, shapes.max_pixels, shapes.rate, shapes.seconds, shapes.mels, shapes.extractor)
        said = repr((self.code, sizes, text, media, sound))
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=KEY).digest()

    def _earlier(self, keys: list[bytes]) -> list[dict[str, Any] | None]:
        """Earlier rows by key, where their media are still there."""
        if self.earlier is None:
            return [None] * len(keys)
        found = self.earlier.find(keys)
        for place, one in enumerate(found):
            if one is not None and any(_may_pass(problem) for problem in one["problems"]):
                found[place] = None
            elif one is not None:
                names = [*one["images"], *([one["sound"]] if one["sound"] else [])]
                if not all(media_path(self.media, name).is_file() for name in names):
                    found[place] = None
        return found

    def _make(self, row: dict[str, Any], text: str) -> dict[str, Any]:
        problems: list[dict[str, str]] = []
        names, pixels = self._pictures(row["image_paths"] or [], problems)
        sound, mel = self.sound(row["audio_path"], problems)
        return {
            "image": None if pixels is None else pixels.tobytes(),
            "audio": None if mel is None else mel.tobytes(),
            "images": names,
            "sound": sound,
            "problems": problems,
            "text_signature": text_signature(text),
            "picture_signature": None if pixels is None else _signature(pixels),
        }

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


def _may_pass(problem: dict[str, str]) -> bool:
    """Whether a medium might be read the next time: a disk or a network that failed, not a damaged file."""
    return problem["reason"] == "unreadable file" or problem["detail"].endswith("out of memory")


def _stamp(source: MediaSource | None, path: str | None) -> object:
    if source is None or path is None:
        return None
    try:
        return source.stamp(path)
    except MediaError as error:
        return error.message


def _signature(pixels: np.ndarray) -> int | None:
    """None also for pictures too small to tell apart."""
    return picture_signature(pixels) if pixels.shape[0] >= 8 and pixels.shape[1] >= 9 else None
