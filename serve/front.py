"""The outermost ASGI middleware: gives each request its id, each answer its headers, and each fault the one shape of
errors, with nothing of ours in it; then tells the log, the metrics and the trace what became of it."""

import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import metrics, tracing
from serve.current import CURRENT, Current, stamped
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
GONE = 499  # in the log: the sender left before the answer


class Front:
    """Middleware around everything else."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        current = Current(arrived=stamped(headers.get("x-request-start")))
        token = CURRENT.set(current)
        with tracing.request(headers) as span:
            try:
                await self._answer(scope, receive, send, current)
            finally:
                _tell(scope["method"], current, span)
                CURRENT.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, current: Current) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                current.status = message["status"]
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
            if current.status:
                raise  # half an answer is out: all that is left is to break the connection
            await refuse(INTERNAL)(scope, receive, sending)


def _tell(method: str, current: Current, span: Any) -> None:
    seconds, status = time.perf_counter() - current.began, current.status or GONE
    endpoint = current.endpoint
    metrics.record("fuserank_requests_total", endpoint=endpoint, status=str(status))
    if not current.streams:
        metrics.record("fuserank_request_seconds", seconds, endpoint=endpoint)
    if current.code is not None:
        metrics.record("fuserank_errors_total", endpoint=endpoint, code=current.code)
    if span is not None:
        span.update_name(f"{method} {endpoint}")
        span.set_attributes(
            {
                "http.request.method": method,
                "http.route": endpoint,
                "http.response.status_code": status,
                "fuserank.request_id": current.request_id,
            }
        )
    log.info(
        "%s %s %d",
        method,
        endpoint,
        status,
        extra={
            "request_id": current.request_id,
            "ms": round(1000 * seconds, 2),
            "key": current.key,
            "code": current.code,
        },
    )
