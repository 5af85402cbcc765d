"""Deadlines: a slow stage is left out, the answer comes in time, says so, and is what a search without it gives."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fuserank.store.database import Database
from serve.api import SearchRequest
from serve.app import store_url
from serve.budget import StageTimes
from serve.envelope import UNAVAILABLE, Envelope, RequestError, Result
from serve.gateway import Gateway
from tests.serve.test_chain import Dead, Fake, ask, chain
from tests.serve.test_gateway import ids, picture

Search = Callable[..., Awaitable[dict[str, Any]]]


class Slowed:
    """A deployment that takes so much longer; counts its calls."""

    def __init__(self, callee: Any, seconds: float):
        self._callee, self.seconds, self.calls = callee, seconds, 0

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        self.calls += 1
        await asyncio.sleep(self.seconds)
        return await self._callee.remote(envelopes)


class Backwards:
    """A reranker that turns the order of the first candidates round, so that its absence shows."""

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        return [Result(e.request_id, np.arange(len(e.payload), dtype=np.float32)) for e in envelopes]


def in_one_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


class Stages(dict[str, Slowed]):
    """The gateway's stages, each of which a test can slow down, and times that suit how busy the machine is."""

    deadline: int  # ms: many times what a search takes
    patient: int  # ms: time for all of it, slow stages included
    late: float  # s: a stage that misses the deadline


@pytest.fixture
def slow(gateway: Gateway, shop: ModuleType) -> Stages:
    """Warm, and at full speed."""
    parts = gateway._chain
    body = SearchRequest.model_validate({"text": "warm", "image": picture(shop)})

    async def warm() -> float:
        await gateway.search(body)
        begin = time.perf_counter()
        await gateway.search(body)
        return 1000 * (time.perf_counter() - begin)

    slowed = Stages()
    slowed.deadline = min(max(1000, int(20 * asyncio.run(warm()))), 6000)
    slowed.patient, slowed.late = 9 * slowed.deadline, 3 * slowed.deadline / 1000
    parts.times = StageTimes()
    slowed |= {modality: Slowed(encoder, 0.0) for modality, encoder in parts._encoders.items()}
    parts._encoders.update(slowed)
    slowed["reranker"] = parts._reranker = Slowed(Backwards(), 0.0)  # type: ignore[assignment]
    slowed["history"] = parts._history = Slowed(parts._history, 0.0)  # type: ignore[assignment]
    return slowed


def scores(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(hit["product_id"], round(hit["score"], 5)) for hit in answer["hits"]]


async def timed(gateway: Gateway, deadline_ms: int | None, **body: Any) -> dict[str, Any]:
    begin = time.perf_counter()
    answer = await gateway.search(SearchRequest.model_validate(body | {"deadline_ms": deadline_ms, "limit": 20}))
    took = 1000 * (time.perf_counter() - begin)
    assert deadline_ms is None or took < 1.1 * deadline_ms, "tests run beside others on few cores"
    return answer | {"took": took}


def test_a_slow_reranker_is_left_out_and_then_not_even_asked(gateway: Gateway, slow: Stages):
    async def scenario():
        whole = await timed(gateway, None, text="red shoe", sort=[])
        assert whole["degraded"] == []
        slow["reranker"].seconds = slow.late
        first = await timed(gateway, slow.deadline, text="red shoe")
        assert first["degraded"] == ["reranker"]
        assert first["took"] > 0.7 * slow.deadline, "nothing was known yet, so it was waited for as long as possible"
        asked = slow["reranker"].calls
        second = await timed(gateway, slow.deadline, text="red shoe")
        assert slow["reranker"].calls == asked
        assert second["took"] < 0.7 * slow.deadline
        assert second["degraded"] == ["reranker"]
        found = sorted(scores(second), key=lambda hit: -hit[1])
        assert scores(first) == scores(second) == found, "as they were found"
        assert ids(first) != ids(whole)
        patient = await timed(gateway, slow.patient, text="red shoe")
        assert patient["degraded"] == []
        assert scores(patient) == scores(whole)

    in_one_loop(scenario)


def test_a_slow_picture_is_left_out_while_words_remain(gateway: Gateway, slow: Stages, shop: ModuleType):
    async def scenario():
        image = picture(shop)
        slow["reranker"].seconds = slow.late
        words = await timed(gateway, slow.deadline, text="blue bag")  # without the reranker
        both = await timed(gateway, slow.deadline, text="blue bag", image=image)
        assert both["degraded"] == words["degraded"] == ["reranker"]
        slow["image"].seconds = slow.late
        surprised = await timed(gateway, slow.deadline, text="blue bag", image=image)
        asked = slow["image"].calls
        planned = await timed(gateway, slow.deadline, text="blue bag", image=image)
        assert slow["image"].calls == asked
        assert surprised["degraded"] == planned["degraded"] == ["reranker", "image"]
        assert scores(surprised) == scores(planned) == scores(words) != scores(both)

    in_one_loop(scenario)


def test_words_remain_when_their_vector_is_late(gateway: Gateway, slow: Stages):
    async def scenario():
        slow["text"].seconds = slow.late
        answer = await timed(gateway, slow.deadline, text="blue bag", explain=True)
        assert answer["degraded"] == ["reranker", "text"]
        for hit in answer["hits"]:
            assert hit["score"] == pytest.approx(hit["explanation"]["lexical_score"], abs=1e-6)
            assert {"blue", "bag"} & set((hit["title"] or "").split())
            contributions = hit["explanation"]["contributions"]
            assert sum(contributions.values()) == pytest.approx(hit["score"], abs=1e-6)
        assert answer["hits"][0]["title"] == "blue bag"

    in_one_loop(scenario)


def test_a_picture_alone_has_no_answer_in_time(gateway: Gateway, slow: Stages, shop: ModuleType):
    async def scenario():
        slow["image"].seconds = slow.late
        with pytest.raises(RequestError) as refused:
            await timed(gateway, slow.deadline // 2, image=picture(shop))
        assert refused.value.failure.status == 504

    in_one_loop(scenario)


def test_neighbours_of_a_batch_do_not_wait_for_each_other(
    gateway: Gateway, slow: Stages, shop: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """A patient request with a slow picture and hurried ones by words leave together."""

    async def at_once(media: Any) -> None:
        """Looking at the picture in a thread would let the others leave before it."""

    monkeypatch.setattr(gateway._admission, "media", at_once)

    async def scenario():
        slow["image"].seconds = slow["reranker"].seconds = slow.late / 2
        patient = asyncio.create_task(timed(gateway, slow.patient, text="red hat", image=picture(shop)))
        hurried = [asyncio.create_task(timed(gateway, slow.deadline, text="red hat")) for _ in range(3)]
        answers = await asyncio.gather(*hurried)
        assert not patient.done()
        assert gateway.batcher.sizes[-1] == 4
        assert [answer["degraded"] for answer in answers] == [["reranker"]] * 3
        assert (await patient)["degraded"] == []
        assert (await patient)["took"] > 1000 * slow.late

    in_one_loop(scenario)


def test_hurried_requests_do_not_wait_for_slow_batches_of_patient_ones(gateway: Gateway, slow: Stages):
    async def scenario():
        slow["reranker"].seconds = slow.late / 2
        patient = []
        for _ in range(2):
            patient.append(asyncio.create_task(timed(gateway, slow.patient, text="red hat")))
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert len(gateway.batcher._in_flight) == 2, "the chain is as full as it gets"
        assert (await timed(gateway, slow.deadline, text="red hat"))["degraded"] == ["reranker"]
        assert [(await one)["degraded"] for one in patient] == [[], []]

    in_one_loop(scenario)


def test_a_late_history_costs_the_users_taste_only(gateway: Gateway, slow: Stages, experiment: Any):
    with Database(store_url(experiment)) as database:
        database.add_events([{"type": "click", "product_id": "p03", "user_id": "late", "event_id": "late-1"}])

    async def scenario():
        slow["history"].seconds = slow.late
        answer = await timed(gateway, slow.deadline, text="red hat", user_id="late")
        assert "history" in answer["degraded"]
        slow["history"].seconds = 0.0
        assert (await timed(gateway, slow.patient, text="red hat", user_id="late"))["degraded"] == []

    in_one_loop(scenario)


def test_a_reranker_that_is_gone_costs_the_reranking_only():
    whole, _ = chain(reranker=Dead())
    (result,) = asyncio.run(whole([ask(0, media={"text": "x"})]))
    assert result.error is None
    assert result.value.left_out == ("reranker",)
    assert result.value.order.tolist() == [0, 1]
    refusing = Fake(lambda features: UNAVAILABLE)
    whole, _ = chain(reranker=refusing)
    (result,) = asyncio.run(whole([ask(0, media={"text": "x"})]))
    assert result.value.left_out == ("reranker",)


def test_what_nobody_waits_for_goes_no_further():
    """A sender that leaves while its batch is encoded: the retriever is not called."""

    async def scenario():
        whole, parts = chain(text=Fake(lambda text: np.zeros(2), 0.05))
        waiting = [asyncio.get_running_loop().create_future() for _ in range(2)]
        run = asyncio.create_task(whole([ask(0, media={"text": "x"}), ask(1, media={"text": "y"})], waiting))
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        await run
        assert [query.text for query in parts["retriever"].batches[0]] == ["y"]
        assert len(parts["reranker"].batches[0]) == 1
        assert waiting[1].result().error is None
        waiting = [asyncio.get_running_loop().create_future()]
        run = asyncio.create_task(whole([ask(2, media={"text": "z"})], waiting))
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        await run
        assert len(parts["retriever"].batches) == 1

    asyncio.run(scenario())


def test_estimates_are_of_the_calls_themselves():
    async def scenario():
        whole, _ = chain(text=Fake(lambda text: np.zeros(2), 0.05))
        await whole([ask(0, media={"text": "x"})])
        assert 0.04 < whole.times.expect("text") < 0.2
        assert whole.times.expect("retrieve") < 0.03

    asyncio.run(scenario())


def test_what_a_request_waited_at_the_door_counts(client: TestClient):
    """The proxy stamps it; a stamp of a clock that is wrong is none."""

    def ask(stamp: str) -> tuple[int, float]:
        answer = client.post(
            "/v1/search", json={"text": "red shoe", "deadline_ms": 5000}, headers={"X-Request-Start": stamp}
        )
        return answer.status_code, answer.json().get("took_ms", 0.0)

    now = 1000 * time.time()
    assert ask(f"t={now - 6000:.0f}")[0] == 429, "its time is over"
    status, took = ask(f"t={1000 * time.time() - 1500:.0f}")
    assert status == 200
    assert 1500 <= took < 5000
    for wrong in ("t=nonsense", "", f"t={now + 60_000:.0f}", f"t={now - 600_000:.0f}"):
        status, took = ask(wrong)
        assert status == 200
        assert took < 1500


def test_who_names_no_deadline_does_not_wait_long_for_what_can_be_left_out(
    gateway: Gateway, slow: Stages, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serve.messages.PATIENCE_SECONDS", slow.deadline / 1000)

    async def scenario():
        slow["history"].seconds = slow.late
        surprised = await timed(gateway, None, text="red hat", user_id="late")
        assert surprised["degraded"] == ["history"]
        assert slow.deadline <= surprised["took"] < 1000 * slow.late
        asked = slow["history"].calls
        planned = await timed(gateway, None, text="red hat", user_id="late")
        assert planned["degraded"] == ["history"]
        assert slow["history"].calls == asked
        assert planned["took"] < slow.deadline
        slow["history"].seconds, slow["reranker"].seconds = 0.0, slow.late
        surprised = await timed(gateway, None, text="red hat")
        assert surprised["degraded"] == ["reranker"]
        assert slow.deadline <= surprised["took"] < 1000 * slow.late
        assert (await timed(gateway, None, text="red hat"))["took"] < slow.deadline
        assert (await timed(gateway, slow.patient, text="red hat"))["degraded"] == []

    in_one_loop(scenario)
