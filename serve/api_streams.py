"""HTTP: a user's recommendations as a stream of server-sent events."""

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from serve import api
from serve.current import CURRENT
from serve.guard import needs
from serve.streams import Streams


class EventStream(StreamingResponse):
    """What a browser's EventSource reads."""

    media_type = "text/event-stream"


def add_streams(app: FastAPI, streams: Streams, errors: dict[int | str, dict[str, Any]]) -> None:
    """Give the app its endpoint."""
    told = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}

    @app.get("/v1/recommend/stream", response_class=EventStream, responses=errors | told, tags=["search"])
    @needs("search")
    async def stream(
        http: Request,
        user_id: Annotated[str, Query(min_length=1, max_length=256)],
        session_id: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
        limit: Annotated[int, Query(ge=1)] = 10,
        exclude_seen: bool = True,
    ) -> EventStream:
        """Recommendations to a user now, and anew whenever their events change them.

        Each event `recommendations` holds what POST /v1/recommend answers; lines that begin with a colon only keep the
        connection open.
        """
        if (current := CURRENT.get()) is not None:
            current.streams = True
        request = api.RecommendRequest(user_id=user_id, session_id=session_id, limit=limit, exclude_seen=exclude_seen)  # type: ignore[call-arg]  # the rest has defaults
        events = await streams.open(request, http.is_disconnected)
        return EventStream(events, headers={"X-Accel-Buffering": "no"})  # a proxy that would gather it must not
