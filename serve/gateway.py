"""The gateway: admits requests, gathers them into micro-batches for the chain, shows products, logs impressions.

Reads the generation's products and media. HTTP itself is in routes.py; here are requests in, answers out.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fuserank.config.online import Scenario
from fuserank.errors import StoreError
from fuserank.store.changes import Kind
from serve import api, metrics, tracing
from serve.admission import Admission, too_busy
from serve.api_refine import sort_keys
from serve.batching import Batcher, QueueFullError
from serve.budget import LOG, RENDER
from serve.chain import Chain
from serve.current import CURRENT, arrived, request_id, time_left
from serve.envelope import EXPIRED, Envelope, Failure, RequestError, Result, failure
from serve.held import Held
from serve.impressions import WAIT_SECONDS, ImpressionLog
from serve.live_documents import LiveDocuments
from serve.logged import Drawn, drawn, impression, tell
from serve.media_limits import MediaLimits
from serve.messages import Ask, Ranked
from serve.nesting import refuse_large_filter
from serve.policies import PolicyStage
from serve.rendering import render
from serve.scoring import Introduce, Scoring
from serve.shown import Shown
from serve.spool import Spool
from serve.writes import Change, Write, Writes

DEADLINE_MS = 10_000  # for requests that name none
LATE_SECONDS = 0.05  # an answer that a busy machine has ready so late is given all the same
PATIENCE = 0.25  # share of the time until its deadline that a request waits for a batch before it leaves beside others


class Gateway:
    """One replica of the front door. Everything it does is on its event loop; model work is elsewhere."""

    def __init__(
        self,
        chain: Chain,
        add_events: Write,
        add_impressions: Write,
        change_products: Change,
        held: Held[Shown],
        generations: Callable[[], list[dict[str, Any]]],
        max_limit: int = 100,
        max_batch: int = 64,
        queue: int = 512,
        media: MediaLimits | None = None,
        max_items: int = 1000,
        *,
        spool: Spool,
        introduce: Introduce,
        max_given: int = 200,
        policy: PolicyStage | None = None,
    ):
        """
        Args:
            add_events, add_impressions: durable writes; the first returns what became of the events (store.AddResult).
            change_products: kind and items → what became of each (Products.change), durably.
            held: what is known of each generation; each request is answered from one.
            generations: what GET /v1/generations shows; called in a thread.
            max_limit: largest `limit` of one answer.
            max_batch: requests of one micro-batch.
            queue: requests that may wait.
            media: how large a picture or sound of a query may be.
            max_items: products, events or ids of one request.
            spool: where impressions wait for the store.
            introduce, max_given: see Scoring.
            policy: the chain's last stage, where there is one.
        """
        self.held, self._generations = held, generations
        self._chain, self._policy = chain, policy
        self._admission = Admission(max_limit, max_items, media or MediaLimits())
        self._writes = Writes(self._admission, add_events, change_products)
        self.batcher: Batcher[Envelope, Result] = Batcher(self._run, max_batch, queue)
        self.scoring = Scoring(self._answer, introduce, held.current, self._admission, max_given)
        self._sent: dict[str, float] = {}  # request id → when its batch left
        self._impressions = ImpressionLog(add_impressions, spool)

    async def search(self, request: api.SearchRequest) -> dict[str, Any]:
        """Answer a query; `api.Answer` as a dict.

        Raises:
            RequestError: the failure to show.
        """
        self._admission.limit(request.limit)
        media = {m: getattr(request, m) for m in ("text", "image", "audio") if getattr(request, m)}
        refuse_large_filter(request.filter)
        await self._admission.media(media)
        ask = Ask(
            "search",
            request.offset + request.limit,
            media,
            weights={str(modality): weight for modality, weight in (request.weights or {}).items()},
            filter=request.filter,
            exclude=tuple(request.exclude),
            user_id=request.user_id,
            session_id=request.session_id,
            explain=request.explain,
            facets=tuple(dict.fromkeys(request.facets)),
            sort=sort_keys(request.sort),
            group_by=request.group_by,
            pool=0 if request.sort or request.group_by else self._pool("search", request.limit),
            first=request.offset,
        )
        answer, ranked = await self._answer(ask, request.deadline_ms, request.offset, request.highlight)
        how = await self._log(answer, ranked, "search", request.text, request.user_id, request.session_id)
        if ask.pool:
            tell(answer, how)
        return answer

    async def suggest(self, text: str, limit: int) -> dict[str, Any]:
        """What somebody may be typing; `api_refine.Suggestions` as a dict."""
        begin = time.perf_counter()
        found = await asyncio.to_thread(self.held.current().documents.suggest, text, limit)
        return {
            "request_id": request_id(),
            "took_ms": round(1000 * (time.perf_counter() - begin), 2),
            "suggestions": [{"text": phrase, "count": count} for phrase, count in found],
        }

    async def recommend(self, request: api.RecommendRequest, shown: Sequence[str] = ()) -> dict[str, Any]:
        """What the user may like; `api.Recommendation` as a dict; not logged if all is `shown`. Raises RequestError."""
        self._admission.limit(request.limit)
        refuse_large_filter(request.filter)
        ask = Ask(
            "recommend",
            request.limit,
            filter=request.filter,
            user_id=request.user_id,
            session_id=request.session_id,
            product_ids=tuple(request.product_ids),
            exclude_seen=request.exclude_seen,
            explain=request.explain,
            pool=self._pool("recommend", request.limit),
        )
        answer, ranked = await self._answer(ask, request.deadline_ms)
        answer["source"] = ranked.found.source
        if shown and [hit["product_id"] for hit in answer["hits"]] == list(shown):
            return answer
        tell(answer, await self._log(answer, ranked, "recommend", None, request.user_id, request.session_id))
        return answer

    async def similar(self, product_id: str, limit: int) -> dict[str, Any]:
        """Products like this one; `api.Answer` as a dict. Raises RequestError."""
        self._admission.limit(limit)
        self._row(self.held.current().documents, product_id)
        ask = Ask("similar", limit, product_ids=(product_id,), exclude=(product_id,))
        answer, ranked = await self._answer(ask, None)
        await self._log(answer, ranked, "similar", product_id, None, None)
        return answer

    def product(self, product_id: str) -> dict[str, Any]:
        """The whole product. Raises RequestError (404)."""
        documents = self.held.current().documents
        return documents.product(self._row(documents, product_id))

    def picture(self, product_id: str) -> tuple[Path, str]:
        """The main picture's file and content type. Raises RequestError (404)."""
        documents = self.held.current().documents
        found = documents.picture(self._row(documents, product_id))
        if found is None:
            raise RequestError(Failure(404, "no_image", f"Product {product_id!r} has no picture."))
        return found

    async def events(self, events: Sequence[Any]) -> dict[str, Any]:
        """As Writes.events."""
        return await self._writes.events(events)

    async def change(self, kind: Kind, items: Sequence[Any]) -> dict[str, Any]:
        """As Writes.change; the gateway that answers shows the change at once."""
        answer = await self._writes.change(kind, items)
        await self.held.current().documents.reach(max((item.get("seq", 0) for item in answer["items"]), default=0))
        return answer

    async def generations(self) -> list[dict[str, Any]]:
        """The generations on disk. Raises RequestError (503)."""
        try:
            return await asyncio.to_thread(self._generations)
        except StoreError as error:
            raise RequestError(failure(error), 5) from error

    async def ready(self) -> None:
        """Raises RequestError (503) unless every deployment answers within 2 s."""
        try:
            await asyncio.wait_for(self._chain.ping(), 2)
        except Exception as error:
            raise RequestError(Failure(503, "not_ready", "A part of the search service does not answer."), 2) from error

    async def start(self) -> None:
        """Hand over the impressions that a gateway before this one left."""
        self._impressions.start()

    async def close(self) -> None:
        """Answer what waits and write the impressions."""
        await self.batcher.drain()
        await self._impressions.close()
        if self._policy is not None:
            self._policy.close()

    async def _run(self, envelopes: list[Envelope], waiting: list[asyncio.Future[Result]]) -> list[Result]:
        now = time.perf_counter()
        metrics.record("fuserank_batch_requests", len(envelopes))
        metrics.record("fuserank_waiting_requests", self.batcher.waiting)
        self._sent.update((envelope.request_id, now) for envelope in envelopes)
        return await self._chain(envelopes, waiting)

    async def _answer(
        self,
        ask: Ask,
        deadline_ms: int | None,
        offset: int = 0,
        highlight: bool = False,
        *,
        shown: Shown | None = None,
    ) -> tuple[dict[str, Any], Ranked]:
        came, seconds = arrived(), (deadline_ms or DEADLINE_MS) / 1000
        begin, left = time.perf_counter() - time.time() + came, came + seconds - time.time()
        patience = PATIENCE * left
        shown = shown or self.held.current()
        envelope = Envelope(request_id(), shown.id, came + seconds, ask.by(deadline_ms), tracing.context())
        if (current := CURRENT.get()) is not None:
            current.deadline = envelope.deadline
        try:
            result = await asyncio.wait_for(
                self.batcher.submit(envelope, patience, left), max(0.0, left) + min(LATE_SECONDS, PATIENCE * seconds)
            )
            sent = self._sent.get(envelope.request_id, begin)
        except QueueFullError:
            raise await too_busy(left, self.batcher.wait) from None
        except TimeoutError:
            raise RequestError(EXPIRED) from None
        finally:
            self._sent.pop(envelope.request_id, None)
        if result.error is not None:
            raise RequestError(result.error, 2 if result.error.status == 503 else None)
        ranked: Ranked = result.value
        rendering = time.perf_counter()
        await shown.documents.reach(ranked.found.seq)
        parts = render(shown.documents, ask, ranked, offset, highlight)
        end = time.perf_counter()
        queue, rendered = round(1000 * (sent - begin), 2), round(1000 * (end - rendering), 2)
        stages = {"queue": queue, **ranked.stages, "render": rendered}
        for stage, milliseconds in stages.items():
            metrics.record("fuserank_stage_seconds", milliseconds / 1000, stage=stage)
        self._chain.times.record(RENDER, end - rendering)
        for part in ranked.left_out:
            metrics.record("fuserank_degraded_total", part=part)
        tracing.add("queue", envelope.trace, came, came + sent - begin)
        return {
            "request_id": envelope.request_id,
            "took_ms": round(1000 * (end - begin), 2),
            "stages": stages,
            "model_version": shown.model_version,
            "generation": shown.id,
            "degraded": list(ranked.left_out),
            **parts,
        }, ranked

    def _row(self, documents: LiveDocuments, product_id: str) -> int:
        row = documents.row(product_id)
        if row is None:
            raise RequestError(Failure(404, "unknown_product", f"There is no product {product_id[:256]!r}."))
        return row

    async def _log(
        self,
        answer: dict[str, Any],
        ranked: Ranked,
        kind: str,
        query: str | None,
        user_id: str | None,
        session_id: str | None,
    ) -> Drawn:
        """Log an answer, and say in it whether it was; returns how it came about."""
        begin = time.perf_counter()
        shown = self.held.get(answer["generation"]) or self.held.current()
        how = drawn(shown.documents, ranked, [hit["product_id"] for hit in answer["hits"]])
        told = impression(answer, ranked, how, kind, query, user_id, session_id)
        answer["logged"] = await self._impressions.add(told, min(WAIT_SECONDS, max(time_left(), 0.0)))
        seconds = time.perf_counter() - begin
        self._chain.times.record(LOG, seconds)
        answer["stages"][LOG] = round(1000 * seconds, 2)
        answer["took_ms"] = round(answer["took_ms"] + 1000 * seconds, 2)
        return how

    def _pool(self, scenario: Scenario, limit: int) -> int:
        """Candidates that a policy draws a slate from: of a search, the page; 0 where no policy answers."""
        if self._policy is None or scenario not in self._policy.online.scenarios:
            return 0
        return limit if scenario == "search" else max(limit, self._policy.online.candidates)
