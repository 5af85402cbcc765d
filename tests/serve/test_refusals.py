"""What the gateway refuses and how: one shape of error, a hint, and nothing of ours in it."""

import base64
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve.gateway import Gateway
from serve.routes import create_app


def error_of(response: Any) -> dict[str, str]:
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "hint", "message", "request_id"]
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body["error"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "at least one of text, image, audio"),
        ({"text": "   "}, 422, "at least one of text, image, audio"),
        ({"text": "x", "limit": 0}, 422, "limit"),
        ({"text": "x", "limit": 51}, 422, "at most 50"),
        ({"text": "x", "offset": -1}, 422, "offset"),
        ({"text": "x", "colour": "red"}, 422, "colour"),
        ({"text": 7}, 422, "text"),
        ({"text": "x" * 3000}, 422, "text"),
        ({"text": "x", "weights": {"text": -1}}, 422, "weights"),
        ({"text": "x", "weights": {"text": 0}}, 422, "leave out every part"),
        ({"image": "%%%"}, 422, "base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, 422, "unreadable picture"),
        ({"audio": base64.b64encode(b"no sound").decode()}, 422, "no audio encoder"),
        ({"text": "x", "filter": {"prize": 3}}, 400, "prize"),
        ({"text": "x", "filter": {"price": {"lte": "cheap"}}}, 400, "price"),
    ],
)
def test_bad_searches_say_what_is_wrong(client: TestClient, body: dict[str, Any], status: int, words: str):
    response = client.post("/v1/search", json=body)
    assert response.status_code == status
    assert words in error_of(response)["message"]


@pytest.mark.parametrize("body", ["{", '{"text": NaN}', "[" * 100_000, '"x"', '{"text": "\\ud800"}', b"\xff\xfe"])
def test_bodies_that_are_no_request(client: TestClient, body: Any):
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    error_of(response)


def test_one_bad_request_in_a_batch_fails_alone(gateway: Gateway, shop: ModuleType):
    import asyncio

    import httpx

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(app=create_app(gateway, 200_000, "test"))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            bodies = [{"text": f"red {i}"} for i in range(12)]
            bodies += [{"image": base64.b64encode(b"bad").decode()}, {"text": "x", "filter": {"prize": 1}}]
            answers = await asyncio.gather(*(http.post("/v1/search", json=body) for body in bodies))
            await gateway.close()
            return [answer.status_code for answer in answers]

    assert asyncio.run(scenario()) == [200] * 12 + [422, 400]
    assert max(gateway.batcher.sizes) >= 8  # they did travel together


def test_a_body_too_large_is_cut_off_declared_or_not(client: TestClient):
    declared = client.post("/v1/search", json={"text": "x" * 300_000})
    assert (declared.status_code, error_of(declared)["code"]) == (413, "too_large")

    def endless():
        yield b'{"text": "'
        for _ in range(400):
            yield b"x" * 1000

    streamed = client.post("/v1/search", content=endless(), headers={"Content-Type": "application/json"})
    assert streamed.status_code == 413


def test_deadlines_and_a_full_queue(client: TestClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    import asyncio

    async def slow(envelopes: list[Any], waiting: list[Any]) -> list[Any]:
        await asyncio.sleep(0.5)
        return []

    monkeypatch.setattr(gateway.batcher, "_run", slow)
    late = client.post("/v1/search", json={"text": "x", "deadline_ms": 50})
    assert (late.status_code, error_of(late)["code"]) == (504, "deadline_exceeded")
    monkeypatch.setattr(gateway.batcher, "_queue", 0)
    busy = client.post("/v1/search", json={"text": "x"})
    assert (busy.status_code, error_of(busy)["code"], busy.headers["retry-after"]) == (429, "too_busy", "1")


def test_a_fault_of_ours_shows_nothing(client: TestClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    def broken(rows: Any) -> Any:
        raise KeyError("/secret/path")

    monkeypatch.setattr(gateway.held.current().documents, "hits", broken)
    response = client.post("/v1/search", json={"text": "x"})
    assert response.status_code == 500
    assert "secret" not in response.text
    error_of(response)


def test_a_store_that_is_gone_answers_503(client: TestClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    async def gone(rows: Any) -> Any:
        raise ConnectionError("disk full")

    monkeypatch.setattr(gateway._writes, "_add_events", gone)
    response = client.post("/v1/events", json=[{"type": "view", "product_id": "p01"}])
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert error_of(response)["code"] == "store_unavailable"
