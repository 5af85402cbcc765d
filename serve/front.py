"""The outermost ASGI middleware: gives each request its id, each answer its headers, and each fault the one shape of
errors, with nothing of ours in it."""

import logging

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.current import CURRENT, Current
from serve.envelope import INTERNAL
from serve.refusal import refuse

log = logging.getLogger("fuserank.serve")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
# FastAPI's pages load their viewer from a content delivery network and start it by a script in the page.
DOCUMENTATION = "frame-ancestors 'none'"


class Front:
    """Middleware around everything else."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = Current()
        token = CURRENT.set(current)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                if scope["path"] in ("/docs", "/redoc"):
                    headers.setdefault("Content-Security-Policy", DOCUMENTATION)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = current.request_id
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            log.error("a request failed", exc_info=error, extra={"request_id": current.request_id})
            if started:
                raise  # half an answer is out: all that is left is to break the connection
            await refuse(INTERNAL)(scope, receive, sending)
        finally:
            CURRENT.reset(token)
