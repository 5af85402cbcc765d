"""One generation as a gateway shows it: its products, with the live changes. Reads its folder, the database, media."""

from dataclasses import dataclass
from pathlib import Path

from fuserank.retrieval.generation import read_manifest
from fuserank.store.database import Database
from serve.documents import Documents
from serve.live_documents import LiveDocuments


@dataclass(frozen=True)
class Shown:
    """What a gateway knows of one generation."""

    id: str
    model_version: str
    documents: LiveDocuments


def show(folder: Path, database: Database, live_media: Path) -> Shown:
    """Open a generation's folder and catch up with the changes.

    Raises:
        StageError: it is not whole. StoreError: the database failed.
    """
    manifest = read_manifest(folder)
    imported = Path(manifest["media"]) if manifest.get("media") else None
    folders = [live_media, *([imported] if imported else [])]
    base = Documents(folder / "products.parquet", imported)
    return Shown(manifest["id"], manifest["model"], LiveDocuments(base, database, manifest["base_seq"], folders))


def hide(shown: Shown) -> None:
    """Follow its changes no longer."""
    shown.documents.close()
