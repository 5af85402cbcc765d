"""The body limit, enforced while the body is read: a sender that lies about its length is cut off all the same."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: more than `max_bytes` of body answers 413."""

    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what the app reads."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        seen = int(declared) if declared.isdigit() and len(declared) < 20 else 0

        async def limited() -> Message:
            nonlocal seen
            if seen > self._max_bytes:
                raise HTTPException(413, f"The body is larger than {self._max_bytes} bytes.")
            message = await receive()
            if message["type"] == "http.request":
                received[0] += len(message.get("body", b""))
                seen = max(seen, received[0])
                if seen > self._max_bytes:
                    raise HTTPException(413, f"The body is larger than {self._max_bytes} bytes.")
            return message

        received = [0]
        await self._app(scope, limited, send)
