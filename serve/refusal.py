"""Errors as HTTP answers: one shape, made in one place, whoever refuses."""

from collections.abc import Mapping

from serve.answer import Answer
from serve.current import CURRENT, request_id
from serve.envelope import Failure


def refuse(failure: Failure, headers: Mapping[str, str] | None = None) -> Answer:
    """The answer that shows a failure."""
    if (current := CURRENT.get()) is not None:
        current.code = failure.code
    body = {"code": failure.code, "message": failure.message, "hint": failure.hint, "request_id": request_id()}
    return Answer({"error": body}, failure.status, dict(headers or {}))
