"""Errors as HTTP answers: one shape, made in one place, whoever refuses."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse

from serve.current import CURRENT, request_id
from serve.envelope import Failure


def refuse(failure: Failure, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer that shows a failure."""
    message = failure.message.encode("utf-8", "replace").decode()  # it may quote what no encoder takes
    if (current := CURRENT.get()) is not None:
        current.code = failure.code
    body = {"code": failure.code, "message": message, "hint": failure.hint, "request_id": request_id()}
    return JSONResponse({"error": body}, failure.status, dict(headers or {}))
