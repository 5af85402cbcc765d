"""The way of one micro-batch: encoders of the modalities present and the users' histories at the same time, then the
retriever, then the reranker, then the policy where there is one. Reads and writes nothing; it only calls deployments.

A request whose stage fails, or whose deadline passes, leaves the batch with its failure; the others go on. One that has
no time for all of it leaves out what budget.py says, and does not wait for what its neighbours wait for; one that
nobody waits for any more goes no further.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from serve.budget import HISTORY, LOG, RENDER, RERANK, RETRIEVE, StageTimes
from serve.envelope import UNAVAILABLE, Envelope, Failure, Result
from serve.messages import Slate
from serve.way import Way

log = logging.getLogger("fuserank.serve")
Results = dict[Way, Result]


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
            history: user ids → Past.
            policy: Choice → Chosen, of requests with a pool; None: the model's own order is every answer.
        """
        self._policy = policy
        self._encoders = dict(encoders)
        self._retriever = retriever
        self._reranker = reranker
        self._history = history
        self._running: set[asyncio.Task[Any]] = set()  # also those that nobody waits for any more
        self.times = StageTimes()

    async def __call__(
        self, envelopes: Sequence[Envelope], waiting: Sequence["asyncio.Future[Result]"] | None = None
    ) -> list[Result]:
        """One result per envelope. Never raises for a deployment's failure.

        Args:
            waiting: what each envelope's sender waits for. A result is set there as soon as there is one; a request
                whose future is done goes no further.
        """
        stages = (*self._encoders, HISTORY, RETRIEVE, RERANK, RENDER, LOG)
        expected = {stage: self.times.expect(stage) for stage in stages}
        loop = asyncio.get_running_loop()
        futures = waiting if waiting is not None else [loop.create_future() for _ in envelopes]
        ways = [Way(envelope, future, expected) for envelope, future in zip(envelopes, futures, strict=True)]
        for way in ways:
            for modality in sorted(way.ask.media.keys() - self._encoders.keys()):
                way.end(_no_encoder(modality))
        calls = self._first([way for way in ways if way.alive()])
        going = []
        for way in ways:
            way.hurry(list(calls))
        begin = time.monotonic()
        while inside := [way for way in ways if way.inside and way.alive()]:
            done = {stage: call.done() for stage, call in calls.items()}
            leaving = [way for way in inside if way.leaves(done)]
            if leaving:
                self._note_overdue(calls, time.monotonic() - begin)
                going.append(self._start(self._finish(leaving, calls)))
                for way in leaving:
                    way.inside = False
            else:
                await _turn((call for call in calls.values() if not call.done()), (way.moment() for way in inside))
        await asyncio.gather(*going)
        return [way.result() for way in ways]

    async def ping(self) -> None:
        """Raises unless every deployment answers."""
        callees = [*self._encoders.values(), self._retriever, self._reranker, self._history]
        await asyncio.gather(*(callee.remote([]) for callee in callees))

    def _first(self, ways: Sequence[Way]) -> dict[str, asyncio.Task[Results]]:
        """The calls that need no other: one for each modality, one for the histories."""
        calls = {}
        for stage in sorted({part for way in ways for part in way.plan.needs}):
            callee = self._history if stage == HISTORY else self._encoders[stage]
            payloads = {
                way: way.ask.user_id if stage == HISTORY else way.ask.media[stage]
                for way in ways
                if stage in way.plan.needs
            }
            calls[stage] = self._start(self._call(stage, callee, payloads))
        return calls

    async def _finish(self, ways: Sequence[Way], calls: Mapping[str, "asyncio.Task[Results]"]) -> None:
        """From the retriever to the answer."""
        ended = {stage: call.result() for stage, call in calls.items() if call.done()}
        queries = {}
        for way in ways:
            query = way.query({stage: results[way] for stage, results in ended.items() if way in results})
            if query is not None:
                queries[way] = query
        candidates, final = {}, []
        for way, result in (await self._call(RETRIEVE, self._retriever, queries)).items():
            if not way.alive():
                continue
            if result.error is not None:
                way.end(result.error)
            elif (features := way.candidates(result.value)) is not None:
                candidates[way] = features
            else:
                final.append(way)
        await asyncio.gather(self._answer(dict.fromkeys(final)), self._rerank(candidates))

    async def _rerank(self, candidates: Mapping[Way, Any]) -> None:
        """Answers each with the reranker's scores, or without them when it can wait no longer."""
        if not candidates:
            return
        begin, call = time.monotonic(), self._start(self._call(RERANK, self._reranker, candidates))
        while inside := [
            way for way in candidates if way.waited_for()
        ]:  # what is found is answered, be it a little late
            if call.done():
                scores = {}
                for way in inside:
                    result = call.result()[way]
                    if result.error == UNAVAILABLE:
                        way.drop_reranking()
                    if result.error is None or result.error == UNAVAILABLE:
                        scores[way] = result.value
                    else:
                        way.end(result.error)
                await self._answer(scores)
                return
            late = [way for way in inside if way.reranked_by() <= time.time()]
            for way in late:
                way.drop_reranking()
            await self._answer(dict.fromkeys(late))
            if late:
                self._note_overdue({RERANK: call}, time.monotonic() - begin)
            else:
                await _turn([call], (way.reranked_by() for way in inside))

    async def _answer(self, scores: Mapping[Way, np.ndarray | None]) -> None:
        """The end of the way of requests whose scores are final; None: those of the retriever."""
        for way, final in scores.items():
            way.order(final)
        slates = await self._choose(list(scores), self._policy) if self._policy is not None else {}
        for way in scores:
            way.answer(slates.get(way))

    async def _choose(self, ways: Sequence[Way], policy: Callee) -> dict[Way, Slate]:
        """Where it fails, answers are the model's own order."""
        offers = {way: offer for way in ways if (offer := way.offered()) is not None}
        if not offers:
            return {}
        sent = [dataclasses.replace(way.envelope, payload=choice) for way, (_, choice) in offers.items()]
        try:
            results = await policy.remote(sent)
        except Exception:
            log.warning("the policy did not answer; answering in the model's own order", exc_info=True)
            return {}
        return {
            way: Slate(choice, result.value, pool)
            for (way, (pool, choice)), result in zip(offers.items(), results, strict=True)
            if result.error is None
        }

    async def _call(self, stage: str, callee: Callee, payloads: Mapping[Way, Any]) -> Results:
        """The result of each; every one has one, whatever becomes of the deployment."""
        if not payloads:
            return {}
        sent = [dataclasses.replace(way.envelope, payload=payload) for way, payload in payloads.items()]
        begin = time.monotonic()
        try:
            results = await callee.remote(sent)
        except Exception:
            log.warning("%s: a deployment did not answer a batch of %d", stage, len(sent), exc_info=True)
            results = [Result(envelope.request_id, error=UNAVAILABLE) for envelope in sent]
        self.times.record(stage, time.monotonic() - begin)
        return dict(zip(payloads, results, strict=True))

    def _note_overdue(self, calls: Mapping[str, "asyncio.Task[Results]"], seconds: float) -> None:
        """What has not ended takes so long at least: the next batch need not wait to learn that."""
        for stage, call in calls.items():
            if not call.done():
                self.times.record(stage, seconds)

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _no_encoder(modality: str) -> Failure:
    return Failure(
        422, "modality_not_served", f"This shop's model has no {modality} encoder.", f"Leave `{modality}` out."
    )


async def _turn(calls: Iterable["asyncio.Task[Any]"], moments: Iterable[float]) -> None:
    """Wait until one of the calls ends, or until the first of the moments."""
    timeout = max(0.0, min(moments) - time.time())
    await asyncio.wait(list(calls), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
