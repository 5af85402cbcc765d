"""Recommendations that are sent as they change: server-sent events, a list whenever the user's events have changed it.

Reads the store: one small query a quarter of a second for all users who listen, whatever gateway their events came
through. A list that stays the same is neither sent nor logged; each that is sent has a request_id of its own.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuserank.errors import StoreError
from serve.api import RecommendRequest
from serve.current import CURRENT, Current
from serve.envelope import Failure, RequestError, failure

log = logging.getLogger("fuserank.serve")
POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0  # proxies close connections that are silent for long
LOOK_SECONDS = 1.0  # how soon a listener who has gone is noticed
RETRY_SECONDS = 1.0  # after a list that could not be made

Recommend = Callable[[RecommendRequest, Sequence[str]], Awaitable[dict[str, Any]]]
Marks = Callable[[Sequence[str]], Mapping[str, Any]]
Gone = Callable[[], Awaitable[bool]]


@dataclass(eq=False)
class _Stream:
    request: RecommendRequest
    mark: Any  # of the user's events as the last list knew them
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """The streams of one gateway replica."""

    def __init__(
        self,
        recommend: Recommend,
        marks: Marks,
        limit: int,
        poll_seconds: float = POLL_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ):
        """
        Args:
            recommend: a request and the ids shown last → an answer, logged unless it shows the same.
            marks: user ids → something that changes with each one's events; called in a thread.
            limit: streams at a time.
        """
        self._recommend, self._marks, self._limit = recommend, marks, limit
        self._poll, self._heartbeat = poll_seconds, heartbeat_seconds
        self._streams: set[_Stream] = set()
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._streams)

    async def open(self, request: RecommendRequest, gone: Gone) -> AsyncIterator[str]:
        """The stream's events, the first list made already.

        Args:
            request: with a user_id.
            gone: whether the listener has left.

        Raises:
            RequestError: there are too many streams, or the first list cannot be made.
        """
        assert request.user_id is not None
        if len(self._streams) >= self._limit:
            full = Failure(429, "too_many_streams", f"{self._limit} streams are open.", "POST /v1/recommend instead.")
            raise RequestError(full, 5)
        stream = _Stream(request, None)
        self._streams.add(stream)
        try:
            stream.mark = await self._mark(request.user_id)
            first = await self._recommend(request, ())
        except BaseException:
            self._streams.discard(stream)
            raise
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        return self._events(stream, first, gone)

    async def _mark(self, user_id: str) -> Any:
        try:
            return (await asyncio.to_thread(self._marks, [user_id])).get(user_id)
        except StoreError as error:
            raise RequestError(failure(error), 5) from error

    async def _events(self, stream: _Stream, answer: dict[str, Any], gone: Gone) -> AsyncIterator[str]:
        silent = 0.0
        try:
            yield _event("recommendations", answer)
            shown = _ids(answer)
            while not await gone():
                wait = min(LOOK_SECONDS, self._heartbeat)
                try:
                    async with asyncio.timeout(wait):
                        await stream.changed.wait()
                except TimeoutError:
                    silent += wait
                    if silent >= self._heartbeat:
                        silent = 0.0
                        yield ": still here\n\n"
                    continue
                stream.changed.clear()
                CURRENT.set(Current(endpoint="/v1/recommend/stream"))  # a list is an answer of its own
                try:
                    answer = await self._recommend(stream.request, shown)
                except RequestError as error:  # the next look tries again
                    log.warning("a stream's list could not be made: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    stream.changed.set()
                    continue
                if _ids(answer) != shown:
                    shown, silent = _ids(answer), 0.0
                    yield _event("recommendations", answer)
        finally:
            self._streams.discard(stream)

    async def _watch(self) -> None:
        """Tell streams of users whose events have changed, as long as there are any."""
        failing = False
        while self._streams:
            await asyncio.sleep(self._poll)
            users = sorted({stream.request.user_id or "" for stream in self._streams})
            try:
                marks = await asyncio.to_thread(self._marks, users)
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("users' events cannot be read; streams wait: %s", error)
                failing = True
                continue
            for stream in self._streams:
                mark = marks.get(stream.request.user_id or "")
                if mark != stream.mark:
                    stream.mark = mark
                    stream.changed.set()


def _ids(answer: dict[str, Any]) -> list[str]:
    return [hit["product_id"] for hit in answer["hits"]]


def _event(name: str, answer: dict[str, Any]) -> str:
    text = json.dumps(answer, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"event: {name}\nid: {answer['request_id']}\ndata: {text}\n\n"
