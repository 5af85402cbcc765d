"""The gateway as Ray Serve runs it: opens the generation, takes the handles of the other deployments, answers HTTP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from fuserank import artifacts, config
from fuserank.store.database import Database
from serve.chain import Callee, Chain
from serve.documents import Documents
from serve.embedding_cache import EmbeddingCache
from serve.gateway import Gateway
from serve.keyring import Keyring
from serve.live_documents import LiveDocuments
from serve.media_limits import MediaLimits
from serve.routes import create_app


def media_limits(guard: config.Guard) -> MediaLimits:
    """The limits that a config asks for."""
    return MediaLimits(guard.max_media_bytes, guard.max_image_pixels, guard.max_audio_seconds)


def remembering(encoders: Mapping[str, Callee], capacity: int) -> Mapping[str, Callee]:
    """The encoders' handles behind a cache each, as they are for a capacity of 0."""
    if capacity == 0:
        return encoders
    return {modality: EmbeddingCache(encoder, modality, capacity) for modality, encoder in encoders.items()}


class Ingress(Gateway):
    """A gateway replica behind Ray's HTTP."""

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        generations: list[dict[str, Any]],
        encoders: dict[str, DeploymentHandle],
        retriever: DeploymentHandle,
        reranker: DeploymentHandle,
        feedback: DeploymentHandle,
        products: DeploymentHandle,
        url: str,
        live_media: Path,
        settings: config.Serve,
        exposed: bool,
    ):
        """
        Args:
            exposed: whether other machines can reach the service, which then asks for keys in any case.
        """
        database = Database(url)
        imported = Path(manifest["media"]) if manifest.get("media") else None
        folders = [live_media, *([imported] if imported else [])]
        super().__init__(
            Chain(remembering(encoders, settings.cache), retriever, reranker, feedback.history),
            feedback.add_events.remote,
            feedback.add_impressions.remote,
            products.change.remote,
            LiveDocuments(Documents(folder / "products.parquet", imported), database, manifest["base_seq"], folders),
            manifest["id"],
            manifest["model"],
            generations,
            settings.max_limit,
            settings.max_batch,
            settings.queue,
            media_limits(settings.guard),
            settings.guard.max_items,
        )
        self._settings = settings
        self._keyring = Keyring(database, exposed)

    def __serve_build_asgi_app__(self) -> FastAPI:  # what serve.ingress() calls in the replica
        return create_app(
            self, self._settings.max_body_bytes, artifacts.metadata_version(), self._settings.guard, self._keyring
        )
