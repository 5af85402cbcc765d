"""The gateway as Ray Serve runs it: opens the generations, takes the handles of the other deployments, answers HTTP."""

import functools
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from fuserank import artifacts, config
from fuserank.store.database import Database
from serve.again import Again
from serve.chain import Callee, Chain
from serve.clicks import ClickModels
from serve.embedding_cache import EmbeddingCache
from serve.gateway import Gateway
from serve.generations import listing
from serve.held import Held
from serve.keyring import Keyring
from serve.media_limits import MediaLimits
from serve.policies import Followed, PolicyStage
from serve.routes import create_app
from serve.shown import Shown, hide, show
from serve.spool import Spool
from serve.streams import Streams


def media_limits(guard: config.Guard) -> MediaLimits:
    """The limits that a config asks for."""
    return MediaLimits(guard.max_media_bytes, guard.max_image_pixels, guard.max_audio_seconds)


def remembering(encoders: Mapping[str, Callee], capacity: int) -> Mapping[str, Callee]:
    """The encoders' handles behind a cache each, as they are for a capacity of 0."""
    if capacity == 0:
        return encoders
    return {modality: EmbeddingCache(encoder, modality, capacity) for modality, encoder in encoders.items()}


def plainly(handle: DeploymentHandle) -> DeploymentHandle:
    """The handle, sending by pickle: what the chain sends needs nothing of cloudpickle, which takes longer."""
    return handle.options(request_serialization="pickle", response_serialization="pickle")


class Ingress(Gateway):
    """A gateway replica behind Ray's HTTP."""

    def __init__(
        self,
        folder: Path,
        encoders: dict[str, DeploymentHandle],
        retriever: DeploymentHandle,
        reranker: DeploymentHandle,
        feedback: DeploymentHandle,
        products: DeploymentHandle,
        url: str,
        live_media: Path,
        settings: config.Serve,
        exposed: bool,
        spool: Path,
        policy: config.Policy,
        clicks: Path,
    ):
        """
        Args:
            folder: of the generation to answer from where the database names none.
            exposed: whether other machines can reach the service, which then asks for keys in any case.
            spool: local folder where impressions wait for the store.
            policy: its `online` says which answers a policy orders. clicks: folder of the click models (clicks.py).
        """
        database = Database(url)
        self._index = folder.parent.parent
        self._settings = settings
        self._keyring = Keyring(database, exposed)
        self._erase = feedback.erase.remote

        stage = PolicyStage(Followed(database, policy), policy, ClickModels(clicks)) if policy.online else None

        self._streams = Streams(self.recommend, database.event_marks, settings.streams)

        def open(folder: Path) -> Shown:
            return show(folder, database, live_media)

        asked = {modality: Again(plainly(encoder)) for modality, encoder in encoders.items()}
        parts = Again(plainly(retriever)), Again(plainly(reranker)), Again(plainly(feedback).history)
        super().__init__(
            Chain(remembering(asked, settings.cache), *parts, stage),
            feedback.add_events.remote,
            feedback.add_impressions.remote,
            products.change.remote,
            Held("gateway", folder, open, database, close=hide),
            functools.partial(listing, database, self._index),
            settings.max_limit,
            settings.max_batch,
            settings.queue,
            media_limits(settings.guard),
            settings.guard.max_items,
            policy=stage,
            spool=Spool(spool, settings.spool_bytes),
            introduce=products.embed.remote,
            max_given=settings.max_given,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:  # what serve.ingress() calls in the replica
        return create_app(
            self,
            self._settings.max_body_bytes,
            artifacts.metadata_version(),
            self._settings.guard,
            self._keyring,
            self._index,
            self._erase,
            self._streams,
        )
