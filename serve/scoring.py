"""Scores without a search: products that are given, ranked; queries and products as vectors.

Reads what the gateway holds; calls the products deployment for products that are in no catalogue, then the chain.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from fuserank.retrieval.guests import Guest
from serve import api_scoring, tracing
from serve.admission import Admission
from serve.current import request_id
from serve.envelope import UNAVAILABLE, Envelope, Failure, RequestError, Result
from serve.messages import Ask, Given, Ranked
from serve.nesting import refuse_deep
from serve.shown import Shown

SECONDS = 10.0  # for products to be encoded where the request names no deadline
Introduce = Callable[[list[Envelope]], Awaitable[list[Result]]]


class Asked(Protocol):
    """Gateway's way through the chain."""

    def __call__(
        self, ask: Ask, deadline_ms: int | None, *, shown: Shown | None = None
    ) -> Awaitable[tuple[dict[str, Any], Ranked]]: ...


class Scoring:
    """The gateway's `POST /v1/rank` and `POST /v1/embed`."""

    def __init__(
        self,
        ask: Asked,
        introduce: Introduce,
        current: Callable[[], Shown],
        admission: Admission,
        max_given: int,
    ):
        """
        Args:
            ask: the chain's answer, by one generation.
            introduce: envelopes of Given → Guests (Products.embed).
            current: the generation that answers.
            max_given: products or inputs of one request.
        """
        self._ask, self._introduce, self._current = ask, introduce, current
        self._admission, self._max_given = admission, max_given

    async def rank(self, request: api_scoring.RankRequest) -> dict[str, Any]:
        """Score and order products; `api_scoring.RankAnswer` as a dict. Raises RequestError."""
        begin = time.perf_counter()
        self._few(request.products)
        media = request.query.media()
        await self._admission.media(media)
        whole = {place: one for place, one in enumerate(request.products) if not isinstance(one, str)}
        shown, left = self._current(), request.deadline_ms
        seconds = SECONDS if left is None else left / 1000
        guests = await self._guests(list(whole.values()), shown, "products", list(whole), seconds) if whole else []
        known = dict(zip(whole, guests, strict=True))
        introduced = time.perf_counter() - begin
        given: list[Any] = [known.get(place, one) for place, one in enumerate(request.products)]
        ask = Ask(
            "rank",
            len(request.products),
            media,
            weights={str(modality): weight for modality, weight in (request.query.weights or {}).items()},
            user_id=request.user_id,
            given=tuple(given),
        )
        deadline = None if left is None else max(1, left - round(1000 * introduced))
        answer, _ = await self._ask(ask, deadline, shown=shown)
        answer["stages"] = {"introduce": round(1000 * introduced, 2)} | answer["stages"]
        answer["took_ms"] = round(1000 * (time.perf_counter() - begin), 2)
        told = {request.products[hit["index"]] for hit in answer["hits"] if hit["index"] not in known}
        answer["unknown"] = [
            place for place, one in enumerate(request.products) if place not in known and one not in told
        ]
        return answer

    async def embed(self, request: api_scoring.EmbedRequest) -> dict[str, Any]:
        """Vectors; `api_scoring.EmbedAnswer` as a dict, all of one generation. Raises RequestError."""
        begin, shown = time.perf_counter(), self._current()
        self._few(request.inputs)
        for one in request.inputs:
            await self._admission.media(one.media())
        if request.kind == "product":
            given = [one.product if one.product is not None else one.media() for one in request.inputs]
            whole = [one.product is not None for one in request.inputs]
            guests = await self._guests(given, shown, "inputs", list(range(len(given))), SECONDS, whole)
            vectors = [guest.vectors.fused.tolist() for guest in guests]
        else:
            asks = [Ask("embed", 0, one.media()) for one in request.inputs]
            answers = await asyncio.gather(*(self._ask(ask, None, shown=shown) for ask in asks))
            vectors = [answer["vector"] for answer, _ in answers]
        return {
            "request_id": request_id(),
            "took_ms": round(1000 * (time.perf_counter() - begin), 2),
            "model_version": shown.model_version,
            "generation": shown.id,
            "width": len(vectors[0]),
            "vectors": vectors,
        }

    async def _guests(
        self,
        given: Sequence[Any],
        shown: Shown,
        field: str,
        places: Sequence[int],
        seconds: float,
        whole: Sequence[bool] | None = None,
    ) -> list[Guest]:
        refuse_deep(list(given), field)
        deadline, name, trace = time.time() + seconds, request_id(), tracing.context()
        payloads = [Given(one) if whole is None or whole[i] else Given(parts=dict(one)) for i, one in enumerate(given)]
        envelopes = [Envelope(name, shown.id, deadline, payload, trace) for payload in payloads]
        try:
            results = await asyncio.wait_for(self._introduce(envelopes), seconds)
        except TimeoutError:
            raise RequestError(Failure(504, "deadline_exceeded", "The products were not encoded in time.")) from None
        except Exception as error:
            raise RequestError(UNAVAILABLE, 2) from error
        for place, result in zip(places, results, strict=True):
            if result.error is not None:
                refused = result.error
                message = f"{field}.{place}: {refused.message}" if refused.status < 500 else refused.message
                retry = 2 if refused.status == 503 else None
                raise RequestError(Failure(refused.status, refused.code, message, refused.hint), retry)
        return [result.value for result in results]

    def _few(self, given: Sequence[Any]) -> None:
        if len(given) > self._max_given:
            what = f"{len(given)} in one request, at most {self._max_given}."
            raise RequestError(Failure(422, "too_many_items", what, "Send them in several requests."))
