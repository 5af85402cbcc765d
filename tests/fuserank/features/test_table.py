"""A features file comes back row by row as it was written, missing modalities included."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from fuserank.errors import InputError
from fuserank.features.attributes import AttributeVocabulary
from fuserank.features.batch import collate
from fuserank.features.featurizer import FeatureSettings
from fuserank.features.layout import feature_schema, feature_writer
from fuserank.features.table import FeatureTable
from fuserank.records.schema import MODALITIES

KNOWN = AttributeVocabulary(width=5)
SETTINGS = FeatureSettings(image_size=(6, 4), mels=3, rate=1000, seconds=0.1, pad_id=9, attributes=KNOWN)


def make(rows: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(rows):
        there = rng.random(len(MODALITIES)) < 0.7
        made.append(
            {
                "product_id": f"p{number:04}",
                "text": rng.integers(1, 99, rng.integers(1, 9)).tolist() if there[0] else None,
                "image": rng.integers(0, 255, (6, 4, 3), np.uint8) if there[1] else None,
                "audio": rng.normal(size=(3, SETTINGS.frames)).astype(np.float16) if there[2] else None,
                "price": float(np.float32(rng.normal())) if there[3] else None,
                "attributes": rng.integers(0, 70_000, 5, np.int32) if there[4] else None,
            }
        )
    return made


def write(path: Path, rows: list[dict], group: int) -> None:
    schema = feature_schema("product_id", SETTINGS)
    with feature_writer(path, schema) as file:
        for start in range(0, len(rows), group):
            part = rows[start : start + group]
            columns = [
                [r["product_id"] for r in part],
                [r["text"] for r in part],
                [None if r["image"] is None else r["image"].tobytes() for r in part],
                [None if r["audio"] is None else r["audio"].tobytes() for r in part],
                [r["price"] for r in part],
                [None if r["attributes"] is None else r["attributes"].tobytes() for r in part],
            ]
            file.write_table(
                pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
            )


@pytest.mark.parametrize("group", [7, 100])
def test_alignment(tmp_path: Path, group: int) -> None:
    rows = make(60)
    write(tmp_path / "f.parquet", rows, group)
    table = FeatureTable.open(tmp_path / "f.parquet")
    assert table.ids == [row["product_id"] for row in rows]
    assert table.rows(["p0007", "p0000"]).tolist() == [7, 0]
    shuffled = np.random.default_rng(5).permutation(60)
    for axis, modality in enumerate(MODALITIES):
        wanted = np.array([row[modality] is not None for row in rows])
        assert (table.has(modality) == wanted).all()
        assert (table.mask[:, axis] == wanted).all()
        some = [row for row in shuffled if wanted[row]]
        found = table.batch(np.array(some), modality)
        expected = collate(modality, [rows[row][modality] for row in some], pad_id=9)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name
        with pytest.raises(ValueError, match=modality):
            table.batch(np.flatnonzero(~wanted)[:1], modality)


def test_collate() -> None:
    text = collate("text", [[5, 6, 7], [8]], pad_id=9)
    assert text["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert text["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    pixels = collate("image", [picture])["pixels"]
    assert pixels.shape == (1, 3, 2, 4)
    assert (pixels[0].numpy() == picture.transpose(2, 0, 1)).all()
    assert collate("audio", [np.ones((3, 5), np.float16)])["mel"].dtype == torch.float32
    assert collate("price", [1.5, 2.0])["log_price"].tolist() == [1.5, 2.0]
    ids = collate("attributes", [np.array([4, 0], np.int32), np.array([1, 2], np.int32)])["attribute_ids"]
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[4, 0], [1, 2]]
    with pytest.raises(ValueError, match="unknown"):
        collate("smell", [1])
    with pytest.raises(ValueError, match="no text"):
        collate("text", [])


def test_all_missing_and_empty(tmp_path: Path) -> None:
    blank = dict.fromkeys(MODALITIES)
    write(tmp_path / "f.parquet", [{"product_id": "a", **blank}, {"product_id": "b", **blank}], 10)
    table = FeatureTable.open(tmp_path / "f.parquet")
    assert not table.mask.any()
    write(tmp_path / "empty.parquet", [], 10)
    assert FeatureTable.open(tmp_path / "empty.parquet").ids == []


def test_not_a_features_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fuserank preprocess"):
        FeatureTable.open(tmp_path / "none.parquet")


def test_a_catalogue_of_20000_opens_quickly(tmp_path: Path) -> None:
    """~290 MB of pixels: about a second here; the bound leaves room for a busy machine."""
    settings = FeatureSettings(image_size=(80, 60))
    schema = feature_schema("product_id", settings)
    pixels = np.random.default_rng(0).bytes(80 * 60 * 3)
    with feature_writer(tmp_path / "f.parquet", schema) as file:
        for start in range(0, 20_000, 1000):
            names = [f"p{start + i}" for i in range(1000)]
            columns = [names, [[1, 2, 3]] * 1000, [pixels] * 1000, [None] * 1000, [1.0] * 1000, [None] * 1000]
            file.write_table(
                pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
            )
    begin = time.monotonic()
    table = FeatureTable.open(tmp_path / "f.parquet")
    assert time.monotonic() - begin < 8
    assert table.images.shape == (20_000, 80, 60, 3)
    assert table.images.flags.c_contiguous
    assert table.images[-1].tobytes() == pixels
