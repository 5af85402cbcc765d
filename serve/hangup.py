"""The innermost ASGI middleware: what works for a sender that has hung up is cancelled.

Servers only say so to whoever listens: once a request's body is there, this waits for the end of its connection. A
cancelled search leaves its batch before the next stage (chain.py); a write that is under way is finished by the
deployment it was sent to.
"""

import asyncio
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Hangup:
    """Middleware around the application's handlers."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as long as somebody waits for the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = _Call(receive, send)
        if scope["method"] in ("GET", "HEAD"):  # handlers of these do not read a body
            await call.read_ahead()
        work = asyncio.ensure_future(_run(self._app(scope, call.receive, call.send)))
        call.work = work
        call.listen()
        try:
            await work
        except asyncio.CancelledError:
            if not call.gone:  # it is us who are cancelled
                work.cancel()
                raise
        finally:
            call.stop()


class _Call:
    """One request's messages."""

    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self._first: Message | None = None
        self._whole = False  # the body is
        self._answered = False
        self._listening: asyncio.Task[Message] | None = None
        self.work: asyncio.Future[None] | None = None
        self.gone = False

    async def read_ahead(self) -> None:
        """Take the first message before anybody asks for it."""
        self._first = await self._receive()
        self._whole = not self._first.get("more_body", False)

    async def receive(self) -> Message:
        """The next message; after the body, the end of the connection."""
        if self._first is not None:
            message, self._first = self._first, None
            return message
        if self._listening is not None:
            return await asyncio.shield(self._listening)
        message = await self._receive()
        self._whole = not message.get("more_body", False)
        self.listen()
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer."""
        self._answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def listen(self) -> None:
        """Wait for the end of the connection, if the body is whole."""
        if self._whole and self._listening is None and self.work is not None:
            self._listening = asyncio.ensure_future(_message(self._receive))
            self._listening.add_done_callback(self._hung_up)

    def stop(self) -> None:
        """Wait no longer."""
        if self._listening is not None:
            self._listening.cancel()

    def _hung_up(self, listening: "asyncio.Task[Message]") -> None:
        if listening.cancelled() or listening.exception() is not None or self._answered or self.work is None:
            return
        if listening.result()["type"] == "http.disconnect" and not self.work.done():
            self.gone = True
            self.work.cancel()


async def _run(work: Awaitable[None]) -> None:
    await work


async def _message(receive: Receive) -> Message:
    return await receive()
