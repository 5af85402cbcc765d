"""Generations: a model, its vectors, its word index and its products as one immutable folder with a manifest.

Writes and reads `index/generations/<id>/` and `index/current` (the live generation's id). A folder is built under
another name, synced, and renamed into place with its manifest already in it; `current` is replaced in one step. So a
reader sees the old generation or the new one, whole.
"""

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.artifacts import flush, write_json
from fuserank.errors import MissingStageError, StageError
from fuserank.retrieval.catalogue import Catalogue, write_catalogue
from fuserank.retrieval.folders import digest_of, link, sync
from fuserank.retrieval.vectors import Kind

MANIFEST = "manifest.json"
CURRENT = "current"
FORMAT = 2  # 2: fusions add to the mean of the modalities; weights of before mean something else


@dataclass(frozen=True)
class Generation:
    """An opened generation."""

    id: str
    folder: Path
    manifest: dict[str, Any]
    catalogue: Catalogue

    @property
    def model_folder(self) -> Path:
        """What models.checkpoint.load_model opens; the reranker lies beside it."""
        return self.folder / "model"

    @property
    def featurizer_folder(self) -> Path:
        """What features.Featurizer.load opens."""
        return self.folder / "featurizer"


def write_generation(
    index_folder: str | Path,
    *,
    products: pa.Table,
    modality_vectors: np.ndarray,
    mask: np.ndarray,
    vectors: np.ndarray,
    texts: list[str],
    model_folder: str | Path,
    featurizer_folder: str | Path,
    modalities: tuple[str, ...],
    kind: Kind = "auto",
    typos: bool = False,
    keep: int = 2,
    spare: Collection[str] = (),
    details: dict[str, Any] | None = None,
) -> str:
    """Build a generation beside the live one, make it current and prune old ones.

    Args:
        products, modality_vectors, mask, vectors, texts, kind, typos: see catalogue.write_catalogue.
        model_folder, featurizer_folder: copied into the generation.
        modalities: names of the M axis.
        keep, spare: see prune.
        details: more entries for the manifest (media folder, candidates, …).

    Returns:
        The new generation's id: UTC time and a digest of its model and vectors.

    Raises:
        EmptyCatalogueError, ModelError: see catalogue.write_catalogue.
    """
    generations = Path(index_folder) / "generations"
    generations.mkdir(parents=True, exist_ok=True)
    model_digest = digest_of(Path(model_folder))
    now = datetime.datetime.now(datetime.UTC)
    content = hashlib.sha256(model_digest.encode() + np.ascontiguousarray(vectors, np.float32).tobytes()).hexdigest()
    identity = f"{now:%Y%m%dT%H%M%S.%f}Z-{content[:8]}"
    building = generations / f".{identity}.{os.getpid()}"
    try:
        became = write_catalogue(building, products, modality_vectors, mask, vectors, texts, kind, typos)
        shutil.copytree(model_folder, building / "model")
        shutil.copytree(featurizer_folder, building / "featurizer")
        manifest = {
            **(details or {}),
            "format": FORMAT,
            "id": identity,
            "created": now.isoformat(timespec="seconds"),
            "model": model_digest,
            "products": products.num_rows,
            "modalities": list(modalities),
            "present": {name: int(n) for name, n in zip(modalities, np.asarray(mask).sum(axis=0), strict=True)},
            "width": int(modality_vectors.shape[2]),
            "fused_width": int(vectors.shape[1]),
            "vectors": became,
            "base_seq": 0,
        }
        write_json(building / MANIFEST, manifest)
        sync(building)
        building.rename(generations / identity)
        flush(generations)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    activate(index_folder, identity)
    prune(index_folder, keep, spare)
    return identity


def adopt(
    index_folder: str | Path, made: Path, details: dict[str, Any], keep: int = 2, spare: Collection[str] = ()
) -> None:
    """Make a generation of another run one of this one's, the current one; one that is here already stays as it is.

    Args:
        made: its folder. details: entries of its manifest that are otherwise here. keep, spare: see prune.

    Raises:
        StageError: it is no generation.
    """
    manifest = read_manifest(made) | details
    generations = Path(index_folder) / "generations"
    if not (generations / manifest["id"] / MANIFEST).is_file():
        building = generations / f".{manifest['id']}.{os.getpid()}"
        try:
            shutil.copytree(made, building)
            write_json(building / MANIFEST, manifest)
            sync(building)
            building.rename(generations / manifest["id"])
            flush(generations)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    activate(index_folder, manifest["id"])
    prune(index_folder, keep, spare)


def variant(folder: Path, into: Path, files: Mapping[str, Path]) -> Path:
    """A generation like another but for some files of its model, for `adopt`.

    Args:
        folder: the other one's. into: a folder on the same disk; what stays the same is linked, not copied.
        files: name within the generation → what takes its place.

    Returns:
        Its folder, named by its id.

    Raises:
        StageError: the other one is no generation.
    """
    manifest, building = read_manifest(folder), into / "building"
    shutil.copytree(folder, building, copy_function=link)
    for name, source in files.items():
        (building / name).unlink()
        shutil.copyfile(source, building / name)
    model, now = digest_of(building / "model"), datetime.datetime.now(datetime.UTC)
    content = hashlib.sha256((model + manifest["id"]).encode()).hexdigest()
    manifest |= {
        "id": f"{now:%Y%m%dT%H%M%S.%f}Z-{content[:8]}",
        "created": now.isoformat(timespec="seconds"),
        "model": model,
        "variant_of": manifest["id"],
    }
    write_json(building / MANIFEST, manifest)
    return building.rename(into / manifest["id"])


def open_generation(folder: str | Path) -> Generation:
    """Open one generation's folder; arrays are memory-mapped.

    Raises:
        StageError: no manifest, another format, or a part missing or not fitting.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    return Generation(manifest["id"], folder, manifest, Catalogue.open(folder))


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What a generation says of itself.

    Raises:
        StageError: no manifest, or another format.
    """
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StageError(f"{folder} is not a generation: {error}", "Run `fuserank index` again.") from error
    if manifest.get("format") != FORMAT:
        raise StageError(
            f"generation {folder} has format {manifest.get('format')}, this version reads {FORMAT}.",
            "Run `fuserank index` again.",
        )
    return manifest


def current_folder(index_folder: str | Path) -> Path:
    """The live generation's folder.

    Raises:
        MissingStageError: there is no index yet.
    """
    index_folder = Path(index_folder)
    try:
        identity = (index_folder / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise MissingStageError(
            f"no index yet in {index_folder}.", "Run `fuserank index -c <your config>` first."
        ) from None
    folder = index_folder / "generations" / identity
    if not identity or not (folder / MANIFEST).is_file():
        raise MissingStageError(
            f"{index_folder / CURRENT} names generation {identity!r}, which is not there.",
            "Run `fuserank index -c <your config>` again.",
        )
    return folder


def current_generation(index_folder: str | Path) -> Generation:
    """Open the live generation.

    Raises:
        MissingStageError: there is no index yet.
        StageError: see open_generation.
    """
    return open_generation(current_folder(index_folder))


def activate(index_folder: str | Path, identity: str) -> None:
    """Make a finished generation the live one, in one step.

    Raises:
        StageError: there is no finished generation of this id.
    """
    index_folder = Path(index_folder)
    if not identity or not (index_folder / "generations" / identity / MANIFEST).is_file():
        raise StageError(f"there is no generation {identity!r} in {index_folder}.")
    temporary = index_folder / f".{CURRENT}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as out:
        out.write(identity + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(index_folder / CURRENT)
    flush(index_folder)


def generation_ids(index_folder: str | Path) -> list[str]:
    """Ids of finished generations, oldest first."""
    return sorted(
        manifest.parent.name
        for manifest in (Path(index_folder) / "generations").glob(f"*/{MANIFEST}")
        if not manifest.parent.name.startswith(".")
    )


def prune(index_folder: str | Path, keep: int, spare: Collection[str] = ()) -> list[str]:
    """Remove the oldest generations beyond `keep`, never the live one or those to spare; returns the removed ids."""
    live = {current_folder(index_folder).name, *spare}
    others = [identity for identity in generation_ids(index_folder) if identity not in live]
    gone = others[: max(0, len(others) - max(keep - 1, 0))]
    for identity in gone:
        folder = Path(index_folder) / "generations" / identity
        (folder / MANIFEST).unlink()  # first: from here on nobody opens it
        shutil.rmtree(folder)
    return gone
