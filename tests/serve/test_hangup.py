"""A client that leaves stops its work: over real HTTP the later stages are not called, and neighbours are answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from serve.envelope import Envelope, Result
from serve.gateway import Gateway
from serve.hangup import Hangup
from serve.routes import create_app


class Counted:
    """A deployment that takes its time; counts what it is asked for."""

    def __init__(self, callee: Any, seconds: float = 0.0):
        self._callee, self.seconds, self.asked = callee, seconds, 0

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        self.asked += len(envelopes)
        await asyncio.sleep(self.seconds)
        return await self._callee.remote(envelopes)


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[int]:
    """The port of a server."""
    server = uvicorn.Server(uvicorn.Config(create_app(gateway, 200_000, "test"), port=0, log_level="error"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


def request(method: str, path: str, body: Any = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def slowed(gateway: Gateway) -> tuple[Counted, Counted, Counted]:
    """Encoder, retriever and reranker, counted; the encoder is slow."""
    parts = gateway._chain
    text = parts._encoders["text"] = Counted(parts._encoders["text"], 0.5)
    retriever = parts._retriever = Counted(parts._retriever)
    reranker = parts._reranker = Counted(parts._reranker)
    return text, retriever, reranker


def test_the_stages_after_a_client_has_left_are_not_called(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    text, retriever, reranker = slowed(gateway)
    kept: list[Any] = []
    add = gateway._impressions.add

    async def watched(impression: Any, seconds: float) -> bool:
        kept.append(impression)
        return await add(impression, seconds)

    monkeypatch.setattr(gateway._impressions, "add", watched)

    async def scenario():
        async with running(gateway) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("POST", "/v1/search", {"text": "red shoe"}))
            await until(lambda: text.asked == 1)
            writer.close()
            await asyncio.sleep(1.0)
            assert (retriever.asked, reranker.asked, kept) == (0, 0, [])
            assert not gateway.batcher._in_flight
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("POST", "/v1/search", {"text": "red shoe"}))
            assert b"200 OK" in await reader.readline()
            assert (retriever.asked, reranker.asked, len(kept)) == (1, 1, 1)
            writer.close()

    with caplog.at_level("INFO", "fuserank.serve"):
        run(scenario)
    said = [record.getMessage() for record in caplog.records if "/v1/search" in record.getMessage()]
    assert said == ["POST /v1/search 499", "POST /v1/search 200"]


def test_neighbours_of_one_that_left_are_answered(gateway: Gateway):
    text, retriever, reranker = slowed(gateway)

    async def scenario():
        async with running(gateway) as port:
            streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
            for number, (_, writer) in enumerate(streams):
                writer.write(request("POST", "/v1/search", {"text": f"red shoe {number}"}))
            await until(lambda: text.asked >= 1 and text.asked + gateway.batcher.waiting == 6)
            for _, writer in streams[:3]:
                writer.close()
            for reader, writer in streams[3:]:
                assert b"200 OK" in await reader.readline()
                writer.close()
            assert retriever.asked == reranker.asked == 3

    run(scenario)


def test_a_get_that_nobody_waits_for_is_stopped_too(gateway: Gateway):
    _, retriever, _ = slowed(gateway)
    retriever.seconds = 0.5
    ended: list[BaseException | None] = []
    answer = gateway._answer

    async def watched(*arguments: Any, **more: Any) -> Any:
        try:
            return await answer(*arguments, **more)
        except BaseException as error:
            ended.append(error)
            raise

    gateway._answer = watched  # type: ignore[method-assign]

    async def scenario():
        async with running(gateway) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("GET", "/v1/products/p01/similar"))
            await until(lambda: retriever.asked == 1)
            writer.close()
            await until(lambda: len(ended) == 1, 0.4)
            assert isinstance(ended[0], asyncio.CancelledError)

    run(scenario)


@pytest.mark.parametrize("parts", [1, 3])
def test_bodies_in_parts_and_answers_pass_unchanged(parts: int):
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": b"x", "more_body": n < parts - 1} for n in range(parts)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        await asyncio.sleep(0.05)  # what goes on behind the answer is not cut off
        sent.append("after")

    async def scenario():
        queue = iter(messages)

        async def receive() -> Any:
            for message in queue:
                return message
            while not any(isinstance(one, dict) and one.get("more_body") is False for one in sent):
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await Hangup(app)({"type": "http", "method": "POST"}, receive, send)

    run(scenario)
    assert [one.get("body") for one in sent[1:-1]] == [b"x" * parts, b""]
    assert sent[-1] == "after"


def test_an_error_of_the_handler_and_a_cancelled_server_are_passed_on():
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("its own")

    async def hanging(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(60)

    async def never() -> Any:
        if not first:
            first.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.sleep(60)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    first: list[int] = []

    async def scenario():
        with pytest.raises(ValueError, match="its own"):
            await Hangup(failing)({"type": "http", "method": "POST"}, never, send)
        first.clear()
        task = asyncio.create_task(Hangup(hanging)({"type": "http", "method": "POST"}, never, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)
