"""Features of a whole catalogue (or query set): written by preprocess as Parquet, opened for training as flat arrays.

The file's columns are described in `layout`.
Legend: N rows, M modalities in MODALITIES order, B rows of a batch.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fuserank.errors import InputError
from fuserank.features.batch import image_batch, pad_tokens, sound_batch
from fuserank.features.extractor import sound_type
from fuserank.features.layout import COLUMNS, SHAPES_KEY
from fuserank.records.schema import MODALITIES


class FeatureTable:
    """N rows of features in memory, one contiguous array a modality."""

    def __init__(
        self,
        ids: list[str],
        mask: np.ndarray,
        tokens: np.ndarray,
        offsets: np.ndarray,
        images: np.ndarray,
        audio: np.ndarray,
        prices: np.ndarray,
        attributes: np.ndarray,
        pad_id: int = 0,
    ):
        """Takes arrays as `open` builds them.

        Args:
            ids: N ids.
            mask: bool [N, M].
            tokens: int32, all rows' token ids one after the other; row i has tokens[offsets[i]:offsets[i + 1]].
            images: uint8 [rows with one, H, W, 3]; audio: float16 [rows with one, mels, frames], or
                [rows with one] of extractor.sound_type.
            prices: float32 [N], NaN where missing. attributes: int32 [rows with one, V].
        """
        self.ids = ids
        self.mask = mask
        self.tokens, self.offsets = tokens, offsets
        self.images, self.audio, self.prices, self.attributes = images, audio, prices, attributes
        self.pad_id = pad_id
        self._slots = {name: np.cumsum(self.has(name)) - 1 for name in ("image", "audio", "attributes")}
        self._rows: dict[str, int] | None = None

    @classmethod
    def open(cls, path: Path | str) -> "FeatureTable":
        """Read a features file, or a folder of parts in the order of their names.

        Raises:
            InputError: the file is missing or is not a features file.
        """
        parts = sorted(Path(path).glob("*.parquet")) if Path(path).is_dir() else [path]
        try:
            files = [pq.ParquetFile(part, memory_map=True) for part in parts]
            shapes = json.loads(files[0].schema_arrow.metadata[SHAPES_KEY])
        except (OSError, IndexError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise InputError(f"{path} is not a features file: {error}", "Run `fuserank preprocess` first.") from None
        identifier, rows = files[0].schema_arrow.names[0], sum(file.metadata.num_rows for file in files)
        ids: list[str] = []
        mask = np.zeros((rows, len(MODALITIES)), dtype=bool)
        tokens, lengths = [np.zeros(0, np.int32)], np.zeros(rows, np.int64)
        prices = np.full(rows, np.nan, np.float32)
        # Room for every row; untouched pages of the missing ones cost nothing.
        media = {
            "image": np.empty((rows, *shapes["image"]), np.uint8),
            "audio": np.empty(rows, sound_type(tuple(shapes["audio"])))
            if shapes["sound_lengths"]
            else np.empty((rows, *shapes["audio"]), np.float16),
            "attributes": np.empty((rows, *shapes["attributes"]), np.int32),
        }
        filled = dict.fromkeys(media, 0)
        begin = 0
        for file, group in [(one, group) for one in files for group in range(one.num_row_groups)]:
            part = file.read_row_group(group, columns=[identifier, *COLUMNS.values()])
            here = slice(begin, begin + part.num_rows)
            ids += part.column(identifier).to_pylist()
            for axis, name in enumerate(MODALITIES):
                mask[here, axis] = part.column(COLUMNS[name]).is_valid().to_numpy()
            lists = _whole(part, "tokens")
            lengths[here] = np.nan_to_num(lists.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
            tokens.append(lists.flatten().to_numpy())
            prices[here] = _whole(part, "price").to_numpy(zero_copy_only=False)
            for name, array in media.items():
                found = _packed(_whole(part, name), array.dtype, array.shape[1:])
                array[filled[name] : filled[name] + len(found)] = found
                filled[name] += len(found)
            begin = here.stop
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        images, audio, attributes = (array[: filled[name]] for name, array in media.items())
        return cls(ids, mask, np.concatenate(tokens), offsets, images, audio, prices, attributes, shapes["pad_id"])

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, modality: str) -> np.ndarray:
        """bool [N]: which rows have the modality."""
        return self.mask[:, MODALITIES.index(modality)]

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """int64: the row of each id.

        Raises:
            KeyError: an id is not in the table.
        """
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.ids)}
        return np.fromiter((self._rows[name] for name in ids), dtype=np.int64)

    def batch(self, rows: np.ndarray | Sequence[int], modality: str) -> dict[str, Tensor]:
        """Collated inputs (see `features.batch.collate`) of rows int64 [B], every one of which has the modality.

        Raises:
            ValueError: a row lacks it, or there are no rows.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) == 0 or not self.has(modality)[rows].all():
            raise ValueError(f"every row of a {modality} batch must have {modality}, and there must be one")
        if modality == "text":
            lengths = self.offsets[rows + 1] - self.offsets[rows]
            within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            return pad_tokens(self.tokens[np.repeat(self.offsets[rows], lengths) + within], lengths, self.pad_id)
        if modality == "image":
            return image_batch(self.images[self._slots["image"][rows]])
        if modality == "audio":
            return sound_batch(self.audio[self._slots["audio"][rows]])
        if modality == "attributes":
            return {"attribute_ids": torch.from_numpy(self.attributes[self._slots[modality][rows]].astype(np.int64))}
        return {"log_price": torch.from_numpy(self.prices[rows])}


def _whole(part: pa.Table, name: str) -> pa.Array:
    column = part.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _packed(column: pa.Array, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Equally long binaries → [values present, *shape] without copying: Arrow keeps them side by side."""
    present = len(column) - column.null_count
    size = int(np.prod(shape)) * kind.itemsize
    if present == 0:
        return np.empty((0, *shape), kind)
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    if int(offsets[-1]) - int(offsets[0]) != present * size:
        raise InputError(
            f"a features file holds values of another size than {shape}.", "Run `fuserank preprocess` again."
        )
    data = np.frombuffer(column.buffers()[2], np.uint8, present * size, int(offsets[0]))
    return data.view(kind).reshape(present, *shape)
