"""Products: takes live changes of the catalogue, writes them to the change log and has them encoded, in every
generation that is held; its one replica also activates generations. Reads and writes the store and its media folder.

A change is answered once it is durable: media first, then the record. Its vectors follow at once, in the background.
"""

import asyncio
import functools
import logging
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fuserank.errors import FuserankError, InputError, MediaError
from fuserank.records import live
from fuserank.records.media import store
from fuserank.retrieval.generation import read_manifest
from fuserank.store.changes import Edit, Kind
from fuserank.store.database import Database
from serve.chain import Callee
from serve.embedder import Embedder
from serve.envelope import EXPIRED, UNAVAILABLE, Envelope, Result
from serve.generations import Conductor
from serve.held import Held
from serve.introduction import introduced
from serve.media_limits import MediaLimits
from serve.worker import one_thread

log = logging.getLogger("fuserank.serve")
ENCODE_SECONDS = 60.0


class Products:
    """Called by the gateway only. One replica is enough: encoding is what takes time, and the encoders do it."""

    def __init__(
        self,
        generation: Path,
        url: str,
        media: Path,
        encoders: dict[str, Any],
        deployments: Sequence[str] = (),
        writers: int = 8,
        limits: MediaLimits | None = None,
    ):
        """
        Args:
            generation: folder of the generation to answer from where the database names none.
            url: the database.
            media: folder that gets the media sent.
            encoders: modality → its encoder's deployment.
            deployments: those that must hold a generation before it is activated.
            writers: calls that may share one commit.
            limits: how large a picture or sound may be.

        Raises:
            StoreError: the database cannot be opened. ModelError: the model cannot be loaded.
        """
        one_thread()
        self._limits = limits or MediaLimits()
        self._database = Database(url)
        self._media, self._encoders = media, encoders
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="products-writer")
        self._tasks: dict[Embedder, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # the one whose handles the embedders need
        self.held = Held("products", generation, self._open, self._database, close=self._end, ready=Embedder.ready)
        self._conductor = Conductor(self._database, generation.parent.parent, deployments, list(encoders))

    async def change(self, kind: Kind, items: list[Any]) -> list[dict[str, Any]]:
        """Upsert, patch or delete; what became of each item. The accepted ones are durable when this returns.

        Args:
            items: products as sent (records/live.py), ids for `delete`.

        Raises:
            StoreError: the database failed; nothing was accepted.
        """
        self._follow()
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._writers, functools.partial(self._write, kind, items))
        for embedder in self.held.all():
            embedder.wake()
        return answers

    async def embed(self, envelopes: list[Envelope]) -> list[Result]:
        """Payload: Given. Value: Guest, what scoring reads of a product that is in no catalogue. Stores nothing."""
        return await introduced(envelopes, self.held.get, self._limits)

    async def check_health(self) -> None:
        """Ray Serve calls it from the start on, on the loop whose handles the embedders need."""
        self._follow()

    @property
    def embedder(self) -> Embedder:
        """Of the generation that answers."""
        return self.held.current()

    def _open(self, folder: Path) -> Embedder:
        manifest = read_manifest(folder)
        folders = [self._media, *([Path(manifest["media"])] if manifest.get("media") else [])]
        embedder = Embedder(folder, manifest["base_seq"], folders, self._database, self._encode)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._run, embedder)
        return embedder

    def _follow(self) -> None:
        self._loop = asyncio.get_running_loop()
        for embedder in self.held.all():
            self._run(embedder)

    def _run(self, embedder: Embedder) -> None:
        if embedder not in self._tasks or self._tasks[embedder].done():
            self._tasks[embedder] = asyncio.get_running_loop().create_task(embedder.run())

    def _end(self, embedder: Embedder) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel, embedder)

    def _cancel(self, embedder: Embedder) -> None:
        if embedder in self._tasks:  # else it never ran
            self._tasks.pop(embedder).cancel()

    def _write(self, kind: Kind, items: list[Any]) -> list[dict[str, Any]]:
        edits: dict[int, Edit] = {}
        answers: list[dict[str, Any]] = []
        for place, item in enumerate(items):
            try:
                edits[place] = self._edit(kind, item)
                answers.append({"product_id": edits[place].product_id, "status": "accepted"})
            except InputError as error:
                told = item.get("product_id") if isinstance(item, dict) else item
                named = told[: live.ID_LENGTH] if isinstance(told, str) else None
                answers.append(_refused(named, error.message, error.hint))
        outcomes = self._database.add_changes(list(edits.values()), self.embedder.base.record) if edits else []
        for place, outcome in zip(edits, outcomes, strict=True):
            if outcome.seq is None:
                answers[place] = _refused(outcome.product_id, outcome.reason, "Send the whole product by POST.")
            else:
                answers[place]["seq"] = outcome.seq
        return answers

    def _edit(self, kind: Kind, item: Any) -> Edit:
        if kind == "delete":
            return Edit(kind, live.product_id(item))
        identity = live.identifier(item)
        values, media = live.clean(item)
        values |= {name: self._kept(name, value) for name, value in media.items()}
        if kind == "patch":
            if not values:
                raise InputError("nothing to change.", "Give the fields to set, null to take one away.")
            return Edit(kind, identity, values)
        return Edit(kind, identity, live.record(identity, live.merge({}, values)))

    def _kept(self, name: str, value: Any) -> Any:
        """The names of media that were looked at and are on disk."""
        modality = "audio" if name == "audio" else "image"
        look = getattr(self.embedder.featurizer, modality)
        try:
            for one in value if isinstance(value, list) else [value]:
                self._limits.check(modality, one)
                look(one)
        except MediaError as error:
            hint = error.hint or "Send the file's own bytes as base64."
            raise InputError(f"{name}: {error.message}", hint) from None
        if isinstance(value, list):
            return [store(self._media, one, durable=True) for one in value]
        return store(self._media, value, durable=True)

    async def _encode(self, generation: str, modality: str, values: list[Any]) -> list[np.ndarray | None]:
        encoder: Callee = self._encoders[modality].products
        deadline = time.time() + ENCODE_SECONDS
        envelopes = [Envelope(uuid.uuid4().hex, generation, deadline, value) for value in values]
        found: list[np.ndarray | None] = []
        for result in await encoder.remote(envelopes):
            if result.error in (UNAVAILABLE, EXPIRED):
                raise FuserankError(f"the {modality} encoder: {result.error.message}")
            if result.error is not None:  # asking again would give the same: the product goes without
                log.error("the %s of a changed product cannot be encoded: %s", modality, result.error.message)
            found.append(result.value)
        return found

    def __del__(self):  # Serve calls it when the replica ends: writes under way are finished
        if hasattr(self, "_conductor"):
            self._conductor.stop()
            self.held.stop()
            self._database.close()


def _refused(product_id: str | None, reason: str, hint: str) -> dict[str, Any]:
    return {"product_id": product_id, "status": "rejected", "reason": reason, "hint": hint}
