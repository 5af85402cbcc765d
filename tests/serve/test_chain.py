"""The way of a batch, with deployments that are small classes: order of hops, batch sizes, isolation, deadlines."""

import asyncio
import time
from typing import Any

import numpy as np

from serve.chain import Chain
from serve.envelope import Envelope, Failure, Result
from serve.messages import Ask, Found, HistoryEvent, Past

BROKEN = Failure(422, "unreadable_media", "broken")


class Fake:
    """A deployment whose work is a function of one payload; notes the batches and when they came."""

    def __init__(self, work: Any, seconds: float = 0.0):
        self._work, self._seconds = work, seconds
        self.batches: list[list[Any]] = []
        self.spans: list[tuple[float, float]] = []

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        begin = time.perf_counter()
        self.batches.append([envelope.payload for envelope in envelopes])
        await asyncio.sleep(self._seconds)
        self.spans.append((begin, time.perf_counter()))
        results = []
        for envelope in envelopes:
            value = self._work(envelope.payload)
            error = value if isinstance(value, Failure) else None
            results.append(Result(envelope.request_id, None if error else value, error))
        return results


class Dead:
    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        raise ConnectionError("replica died")


def found(query: Any) -> Found:
    rows = np.arange(3)
    features = np.array([[1.0], [3.0], [2.0]], np.float32) if query.ask.kind == "search" else None
    return Found(rows, np.array([0.9, 0.8, 0.7], np.float32), features, "search", ("text",))


def chain(**changes: Any) -> tuple[Chain, dict[str, Any]]:
    parts: dict[str, Any] = {
        "text": Fake(lambda text: np.full(2, len(text))),
        "image": Fake(lambda data: BROKEN if data == b"bad" else np.zeros(2)),
        "retriever": Fake(found),
        "reranker": Fake(lambda features: features[:, 0]),
        "history": Fake(lambda user: Past((HistoryEvent("p1", "click", 1.0),))),
    } | changes
    encoders = {"text": parts["text"], "image": parts["image"]}
    return Chain(encoders, parts["retriever"], parts["reranker"], parts["history"]), parts


def ask(number: int, deadline: float = 60, kind: Any = "search", **fields: Any) -> Envelope:
    return Envelope(f"r{number}", "g", time.time() + deadline, Ask(kind, 2, **fields))


def test_one_hop_a_batch_whatever_is_in_it():
    whole, parts = chain()
    envelopes = [
        ask(0, media={"text": "shoe"}),
        ask(1, media={"text": "red", "image": b"good"}),
        ask(2, media={"image": b"good"}),
        ask(3, kind="recommend", user_id="u"),
    ]
    results = asyncio.run(whole(envelopes))
    assert [r.request_id for r in results] == ["r0", "r1", "r2", "r3"]
    assert all(r.error is None for r in results)
    assert [len(parts[p].batches) for p in ("text", "image", "history", "retriever", "reranker")] == [1, 1, 1, 1, 1]
    assert parts["text"].batches == [["shoe", "red"]]
    queries = parts["retriever"].batches[0]
    assert [sorted(query.vectors) for query in queries] == [["text"], ["image", "text"], ["image"], []]
    assert queries[1].vectors["text"].tolist() == [3, 3]
    assert queries[1].ask.media == {}  # pictures do not travel on
    assert queries[3].past.events == (HistoryEvent("p1", "click", 1.0),)
    assert len(parts["reranker"].batches[0]) == 3  # a recommendation is not reranked
    assert results[0].value.order.tolist() == [1, 2]
    assert results[0].value.scores.tolist() == [3.0, 2.0]
    assert results[3].value.order.tolist() == [0, 1]


def test_encoders_work_at_the_same_time():
    whole, parts = chain(text=Fake(lambda text: np.zeros(2), 0.05), image=Fake(lambda data: np.zeros(2), 0.05))
    asyncio.run(whole([ask(0, media={"text": "a", "image": b"good"})]))
    (text,), (image,) = parts["text"].spans, parts["image"].spans
    assert max(text[0], image[0]) < min(text[1], image[1])


def test_a_broken_picture_fails_alone_and_goes_no_further():
    whole, parts = chain()
    results = asyncio.run(whole([ask(0, media={"image": b"bad", "text": "x"}), ask(1, media={"text": "y"})]))
    assert results[0].error == BROKEN
    assert results[1].error is None
    assert len(parts["retriever"].batches[0]) == 1


def test_a_modality_without_encoder_is_refused():
    whole, _ = chain()
    (result,) = asyncio.run(whole([ask(0, media={"audio": b"sound"})]))
    assert result.error is not None
    assert (result.error.status, result.error.code) == (422, "modality_not_served")


def test_a_dead_encoder_fails_only_those_who_need_it():
    whole, _ = chain(image=Dead())
    results = asyncio.run(whole([ask(0, media={"image": b"good"}), ask(1, media={"text": "y"})]))
    assert results[0].error is not None
    assert results[0].error.status == 503
    assert results[1].error is None


def test_a_dead_store_costs_the_history_only():
    whole, parts = chain(history=Dead())
    (result,) = asyncio.run(whole([ask(0, kind="recommend", user_id="u")]))
    assert result.error is None
    assert parts["retriever"].batches[0][0].past == Past()


def test_a_deadline_that_passes_on_the_way_ends_that_request_only():
    whole, parts = chain(image=Fake(lambda data: np.zeros(2), 0.05))
    results = asyncio.run(whole([ask(0, deadline=0.02, media={"image": b"x"}), ask(1, media={"text": "y"})]))
    assert results[0].error is not None
    assert results[0].error.status == 504
    assert results[1].error is None
    assert len(parts["retriever"].batches[0]) == 1
