"""Remembers what the encoders made of recent queries, at the gateway, so that a popular query pays neither the hop nor
the model. Holds vectors in memory only, each generation's for itself.
"""

import hashlib
from collections import OrderedDict
from typing import Any

from serve import metrics
from serve.chain import Callee
from serve.envelope import Envelope, Result


class EmbeddingCache:
    """An encoder's handle with a memory: the last `capacity` different values and their vectors."""

    def __init__(self, encoder: Callee, modality: str, capacity: int):
        self._encoder, self._modality, self._capacity = encoder, modality, capacity
        self._vectors: OrderedDict[bytes, Any] = OrderedDict()  # the oldest use first

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        """As the encoder's own; only values that are not known travel there. Failures are not remembered."""
        keys = [_digest(envelope.generation, envelope.payload) for envelope in envelopes]
        found = {i: self._vectors[key] for i, key in enumerate(keys) if key in self._vectors}
        for i in found:
            self._vectors.move_to_end(keys[i])
        missing = [i for i in range(len(envelopes)) if i not in found]
        for outcome, count in (("hit", len(found)), ("miss", len(missing))):
            metrics.record("fuserank_embedding_cache_total", count, modality=self._modality, outcome=outcome)
        fresh: dict[int, Result] = {}
        if missing or not envelopes:  # an empty call asks whether the encoder is there
            results = await self._encoder.remote([envelopes[i] for i in missing])
            fresh = dict(zip(missing, results, strict=True))
        for i, result in fresh.items():
            if result.error is None:
                self._vectors[keys[i]] = result.value
                self._vectors.move_to_end(keys[i])
        while len(self._vectors) > self._capacity:
            self._vectors.popitem(last=False)
        return [
            Result(envelope.request_id, found[i]) if i in found else fresh[i] for i, envelope in enumerate(envelopes)
        ]


def _digest(generation: str, value: str | bytes) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(generation.encode() + b"\0" + data).digest()
