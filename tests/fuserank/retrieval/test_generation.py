"""Generations on disk: whole or not there, the live one never removed, mistakes named."""

import json
import shutil

import numpy as np
import pytest

from fuserank.errors import EmptyCatalogueError, MissingStageError, ModelError, StageError
from fuserank.records.schema import MODALITIES
from fuserank.retrieval import generation as generations
from fuserank.retrieval.generation import (
    activate,
    current_folder,
    current_generation,
    generation_ids,
    open_generation,
    prune,
    write_generation,
)
from tests.fuserank.retrieval.generations import N, parts


def test_what_was_written_is_read_back(generation, tmp_path):
    values = parts(tmp_path)
    catalogue = generation.catalogue
    assert catalogue.products.equals(values["products"])
    np.testing.assert_array_equal(catalogue.vectors, values["vectors"])
    np.testing.assert_array_equal(catalogue.modality_vectors, values["modality_vectors"])
    np.testing.assert_array_equal(catalogue.mask, values["mask"])
    assert catalogue.size == N
    assert catalogue.rows["p0031"] == 31
    manifest = generation.manifest
    assert manifest["id"] == generation.id == generation.folder.name
    assert (manifest["products"], manifest["modalities"], manifest["base_seq"]) == (N, list(MODALITIES), 0)
    assert manifest["present"] == dict(zip(MODALITIES, values["mask"].sum(0).tolist(), strict=True))
    assert (generation.model_folder / "config.json").is_file()
    assert (generation.featurizer_folder / "config.json").is_file()


def test_documents(generation):
    documents = generation.catalogue.documents(np.array([9, 2]))
    assert [document["product_id"] for document in documents] == ["p0009", "p0002"]
    assert documents[0]["attributes"] == {"shade": "red"}
    assert documents[0]["labels"] == {}


def test_no_index_yet(tmp_path):
    with pytest.raises(MissingStageError, match="fuserank index"):
        current_generation(tmp_path)


def test_pruning_keeps_the_newest_and_the_live_one(tmp_path):
    values = parts(tmp_path, 20)
    written = [write_generation(tmp_path / "index", **values, keep=2) for _ in range(4)]
    assert generation_ids(tmp_path / "index") == written[-2:]
    assert current_folder(tmp_path / "index").name == written[-1]
    activate(tmp_path / "index", written[2])
    assert current_generation(tmp_path / "index").id == written[2]
    assert prune(tmp_path / "index", 1, spare=[written[3]]) == []
    assert prune(tmp_path / "index", 1) == [written[3]]
    with pytest.raises(StageError, match="no generation"):
        activate(tmp_path / "index", written[3])


def test_a_failed_build_leaves_nothing_and_the_old_one_live(tmp_path, monkeypatch):
    values = parts(tmp_path, 20)
    first = write_generation(tmp_path / "index", **values)
    monkeypatch.setattr(generations, "sync", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_generation(tmp_path / "index", **values)
    assert [path.name for path in (tmp_path / "index" / "generations").iterdir()] == [first]
    assert current_generation(tmp_path / "index").id == first


def test_incomplete_or_mixed_folders_are_refused(tmp_path):
    write_generation(tmp_path / "index", **parts(tmp_path, 20))
    folder = current_folder(tmp_path / "index")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "vectors.npy").unlink()
    with pytest.raises(StageError, match="not complete"):
        open_generation(broken)
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    np.save(mixed / "mask.npy", np.ones((19, 4), bool))
    with pytest.raises(StageError, match="differ in size"):
        open_generation(mixed)
    newer = shutil.copytree(folder, tmp_path / "newer")
    (newer / "manifest.json").write_text(json.dumps({"format": 99, "id": "x"}))
    with pytest.raises(StageError, match="format 99"):
        open_generation(newer)
    with pytest.raises(StageError, match="not a generation"):
        open_generation(tmp_path)


def test_parts_that_do_not_fit(tmp_path):
    values = parts(tmp_path, 20)
    with pytest.raises(ModelError, match="vectors has 19 rows for 20"):
        write_generation(tmp_path / "index", **(values | {"vectors": values["vectors"][:19]}))
    with pytest.raises(ModelError, match=r"\[N, M\]"):
        write_generation(tmp_path / "index", **(values | {"mask": values["mask"][:, :2]}))
    with pytest.raises(EmptyCatalogueError):
        write_generation(tmp_path / "index", **(values | {"products": values["products"].slice(0, 0)}))
