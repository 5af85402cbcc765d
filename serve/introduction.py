"""Products that are in no catalogue → what scoring reads of them: their text and vectors. Stores nothing.

Runs in the products deployment, which has the featurizer and the small encoders; the large ones are deployments.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from fuserank.errors import FuserankError, InputError, MediaError
from fuserank.records import live
from fuserank.records.schema import PRODUCT
from fuserank.retrieval.guests import Guest
from serve.embedder import Embedder
from serve.envelope import UNAVAILABLE, Envelope, Result, failure
from serve.media_limits import MediaLimits
from serve.messages import Given

log = logging.getLogger("fuserank.serve")


async def introduced(
    envelopes: list[Envelope], embedder: Callable[[str], Embedder | None], limits: MediaLimits
) -> list[Result]:
    """Payload: Given. Value: Guest. One that cannot be understood fails alone.

    Args:
        embedder: of a generation; None for one that is not held.
    """
    results: dict[int, Result] = {}
    for generation in dict.fromkeys(envelope.generation for envelope in envelopes):
        members = [i for i, envelope in enumerate(envelopes) if envelope.generation == generation]
        found = embedder(generation)
        if found is None:
            results |= {i: Result(envelopes[i].request_id, error=UNAVAILABLE) for i in members}
        else:
            results |= await _of_one(envelopes, members, found, limits)
    return [results[i] for i in range(len(envelopes))]


async def _of_one(
    envelopes: list[Envelope], members: list[int], embedder: Embedder, limits: MediaLimits
) -> dict[int, Result]:
    results: dict[int, Result] = {}
    ready: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    for i in members:
        try:
            ready[i] = await asyncio.to_thread(_understood, envelopes[i].payload, embedder, limits)
        except Exception as error:
            results[i] = Result(envelopes[i].request_id, error=failure(error, envelopes[i].request_id))
    try:
        vectors = await embedder.embed([inputs for _, inputs in ready.values()])
    except FuserankError as error:
        log.warning("given products cannot be encoded: %s", error)
        return results | {i: Result(envelopes[i].request_id, error=UNAVAILABLE) for i in ready}
    for (i, (row, inputs)), made in zip(ready.items(), vectors, strict=True):
        results[i] = Result(envelopes[i].request_id, Guest(row, inputs.get("text") or "", made))
    return results


def _understood(given: Given, embedder: Embedder, limits: MediaLimits) -> tuple[dict[str, Any], dict[str, Any]]:
    """A PRODUCT row without media, and what each modality is made of. Raises InputError."""
    row: dict[str, Any] = dict.fromkeys(PRODUCT.names)
    inputs = dict(given.parts or {})
    if given.parts is None:
        identity = live.identifier(given.product)
        values, media = live.clean(given.product)
        row = live.to_row(live.record(identity, live.merge({}, values)))
        inputs = embedder.inputs(row)
        inputs |= {"image": (media.get("images") or [None])[0], "audio": media.get("audio")}
    for modality in ("image", "audio"):
        if (data := inputs.get(modality)) is not None:
            try:
                limits.check(modality, data)
                getattr(embedder.featurizer, modality)(data)
            except MediaError as error:
                raise InputError(f"{modality}: {error.message}", error.hint) from None
    return row, inputs
