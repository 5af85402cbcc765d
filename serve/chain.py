"""The way of one micro-batch: encoders of the modalities present and the users' histories at the same time, then the
retriever, then the reranker, then the policy where there is one. Reads and writes nothing; it only calls deployments.

A request whose stage fails, or whose deadline passes, leaves the batch with its failure; the others go on.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fuserank.retrieval import policy_inputs
from fuserank.retrieval.arrange import grouped
from fuserank.retrieval.rerank_inputs import placed
from serve.envelope import EXPIRED, UNAVAILABLE, Envelope, Failure, Result
from serve.messages import Ask, Choice, Found, Ranked, RetrieverQuery, Slate

log = logging.getLogger("fuserank.serve")
Order = tuple[np.ndarray, np.ndarray]
"""Indices of all candidates, best first, and the final score of each candidate."""


class Callee(Protocol):
    """What the chain needs of a deployment handle: envelopes in, results out."""

    def remote(self, envelopes: list[Envelope], /) -> Awaitable[list[Result]]: ...


class Chain:
    """`await chain(envelopes of Ask)` → results of Ranked, in order."""

    def __init__(
        self,
        encoders: Mapping[str, Callee],
        retriever: Callee,
        reranker: Callee,
        history: Callee,
        policy: Callee | None = None,
    ):
        """
        Args:
            encoders: modality → its encoder.
            history: user ids → tuples of HistoryEvent.
            policy: Choice → Chosen, of requests with a pool; None: the model's own order is every answer.
        """
        self._policy = policy
        self._encoders = dict(encoders)
        self._retriever = retriever
        self._reranker = reranker
        self._history = history

    async def __call__(self, envelopes: list[Envelope]) -> list[Result]:
        """One result per envelope. Never raises for a deployment's failure."""
        batch = _Batch(envelopes)
        begin = time.perf_counter()
        present = sorted({modality for envelope in envelopes for modality in envelope.payload.media})
        encoding = asyncio.gather(*(self._encode(batch, modality) for modality in present))
        vectors, histories = await asyncio.gather(encoding, self._histories(batch))
        parts = dict(zip(present, vectors, strict=True))
        encoded = time.perf_counter()
        found = await self._call(batch, self._retriever, lambda i, ask: _query(i, ask, parts, histories))
        retrieved = time.perf_counter()
        scores = await self._call(
            batch, self._reranker, lambda i, ask: found[i].features if i in found and len(found[i].rows) else None
        )
        ranked = time.perf_counter()
        stages = {
            "encode": _ms(begin, encoded),
            "retrieve": _ms(encoded, retrieved),
            "rerank": _ms(retrieved, ranked),
        }
        orders = {i: order(found[i], scores.get(i)) for i in range(len(envelopes)) if i not in batch.failures}
        slates: dict[int, Slate] = {}
        if self._policy is not None:
            slates = await self._choose(batch, self._policy, found, orders)
            stages["policy"] = _ms(ranked, time.perf_counter())
        return [
            Result(envelope.request_id, error=batch.failures[i])
            if i in batch.failures
            else Result(envelope.request_id, _rank(envelope.payload, found[i], orders[i], slates.get(i), stages))
            for i, envelope in enumerate(envelopes)
        ]

    async def ping(self) -> None:
        """Raises unless every deployment answers."""
        callees = [*self._encoders.values(), self._retriever, self._reranker, self._history]
        await asyncio.gather(*(callee.remote([]) for callee in callees))

    async def _choose(
        self, batch: "_Batch", policy: Callee, found: Mapping[int, Found], orders: Mapping[int, "Order"]
    ) -> dict[int, Slate]:
        """Where it fails, answers are the model's own order."""
        pools: dict[int, tuple[np.ndarray, Choice]] = {}
        for i in batch.alive():
            if (offer := offered(batch.envelopes[i].payload, found[i], orders[i])) is not None:
                pools[i] = offer
        if not pools:
            return {}
        sent = [dataclasses.replace(batch.envelopes[i], payload=choice) for i, (_, choice) in pools.items()]
        try:
            results = await policy.remote(sent)
        except Exception:
            log.warning("the policy did not answer; answering in the model's own order", exc_info=True)
            return {}
        return {
            i: Slate(choice, result.value, pool)
            for (i, (pool, choice)), result in zip(pools.items(), results, strict=True)
            if result.error is None
        }

    async def _encode(self, batch: "_Batch", modality: str) -> dict[int, np.ndarray]:
        encoder = self._encoders.get(modality)
        if encoder is None:
            missing = Failure(
                422, "modality_not_served", f"This shop's model has no {modality} encoder.", f"Leave `{modality}` out."
            )
            for i in batch.alive():
                if modality in batch.envelopes[i].payload.media:
                    batch.failures[i] = missing
            return {}
        return await self._call(batch, encoder, lambda i, ask: ask.media.get(modality))

    async def _histories(self, batch: "_Batch") -> dict[int, tuple]:
        asked = {
            i: dataclasses.replace(batch.envelopes[i], payload=batch.envelopes[i].payload.user_id)
            for i in batch.alive()
            if batch.envelopes[i].payload.kind != "similar" and batch.envelopes[i].payload.user_id
        }
        if not asked:
            return {}
        try:
            results = await self._history.remote(list(asked.values()))
        except Exception:
            log.warning("histories cannot be read; answering without them", exc_info=True)
            return {}
        return {i: result.value for i, result in zip(asked, results, strict=True) if result.error is None}

    async def _call(self, batch: "_Batch", callee: Callee, payload: Any) -> dict[int, Any]:
        """Send what `payload(i, ask)` gives (None: nothing) for each live request; failures are noted in the batch."""
        sent: dict[int, Envelope] = {}
        for i in batch.alive():
            envelope = batch.envelopes[i]
            value = payload(i, envelope.payload)
            if value is not None:
                sent[i] = dataclasses.replace(envelope, payload=value)
        if not sent:
            return {}
        try:
            results = await callee.remote(list(sent.values()))
        except Exception:
            log.warning("a deployment did not answer a batch of %d", len(sent), exc_info=True)
            results = [Result(envelope.request_id, error=UNAVAILABLE) for envelope in sent.values()]
        values = {}
        for i, result in zip(sent, results, strict=True):
            if result.error is None:
                values[i] = result.value
            else:
                batch.failures[i] = result.error
        return values


class _Batch:
    """The envelopes under way and the failures so far."""

    def __init__(self, envelopes: Sequence[Envelope]):
        self.envelopes = envelopes
        self.failures: dict[int, Failure] = {}

    def alive(self) -> list[int]:
        now = time.time()
        for i in range(len(self.envelopes)):
            if self.envelopes[i].deadline <= now:
                self.failures.setdefault(i, EXPIRED)
        return [i for i in range(len(self.envelopes)) if i not in self.failures]


def _query(
    i: int, ask: Ask, parts: Mapping[str, Mapping[int, np.ndarray]], histories: Mapping[int, tuple]
) -> RetrieverQuery:
    vectors = {modality: vectors[i] for modality, vectors in parts.items() if i in vectors}
    return RetrieverQuery(dataclasses.replace(ask, media={}), ask.media.get("text"), vectors, histories.get(i, ()))


def order(found: Found, scores: np.ndarray | None) -> Order:
    """The model's own order of all candidates, and their final scores."""
    final = found.score if scores is None else placed(found.score, scores)
    return np.arange(len(final)) if found.ordered else np.argsort(-final, kind="stable"), final


def offered(ask: Ask, found: Found, ranked: Order) -> tuple[np.ndarray, Choice] | None:
    """What a policy may choose from for one request: indices into the candidates, and what it is told of them."""
    if not ask.pool:
        return None
    best, final = ranked
    pool, told = best[ask.first : ask.first + ask.pool], found.told
    if ask.kind == "search" and found.features is not None:
        seen = found.features if isinstance(found.features, np.ndarray) else found.features.features
        told = policy_inputs.searched(seen, found.modalities)
    if told is None or not len(pool) or pool.max() >= len(told):  # of those below the reranker's depth nothing is told
        return None
    features = policy_inputs.complete(final[pool], told[pool])
    names = policy_inputs.names(ask.kind, found.modalities)
    return pool, Choice(ask.kind, names, features, ask.depth - ask.first)


def _rank(ask: Ask, found: Found, ranked: Order, slate: Slate | None, stages: dict[str, float]) -> Ranked:
    order, final = ranked
    if slate is not None:
        order = np.concatenate([order[: ask.first], slate.pool[slate.chosen.rows]])
    if found.groups is None:
        order = order[: ask.depth]
        return Ranked(found, order, final[order], stages, slate=slate)
    groups = grouped(order, found.groups)
    order = np.array([members[0] for members in groups[: ask.depth]], np.int64)
    return Ranked(found, order, final[order], stages, groups[: ask.depth], len(groups))


def _ms(begin: float, end: float) -> float:
    return round(1000 * (end - begin), 2)
