"""What travels between deployments: lists of envelopes in, lists of results out, so that a hop is paid per batch.

One request's failure, deadline or wrong generation never fails its neighbours: `answer` holds that rule for every
deployment.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fuserank.errors import FilterError, FuserankError, InputError, MediaError, StoreError

log = logging.getLogger("fuserank.serve")


@dataclass(frozen=True, slots=True)
class Envelope:
    """One request on its way to a deployment."""

    request_id: str
    generation: str  # the generation that must answer it
    deadline: float  # seconds since the epoch; after it nobody waits for the answer
    payload: Any
    trace: str | None = None  # the traceparent of its span, where it is traced


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request has no answer, ready to be shown to its sender."""

    status: int  # HTTP status
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One request's answer: either `value` or `error`."""

    request_id: str
    value: Any = None
    error: Failure | None = None


class RequestError(Exception):
    """Raised at the gateway to end one request with a failure."""

    def __init__(self, failure: Failure, retry_after: int | None = None):
        super().__init__(failure.message)
        self.failure = failure
        self.retry_after = retry_after  # seconds, sent as Retry-After


ANY = "*"  # for work that is the same in every generation
EXPIRED = Failure(
    504, "deadline_exceeded", "The answer was not ready before the deadline.", "Raise `deadline_ms` or ask again."
)
INTERNAL = Failure(500, "internal", "The request could not be answered.", "The server's log has the details.")
UNAVAILABLE = Failure(
    503,
    "unavailable",
    "A part of the search service is restarting or has too much to do.",
    "Try again in a few seconds.",
)
_STATUS: tuple[tuple[type[FuserankError], int, str], ...] = (
    (FilterError, 400, "bad_filter"),
    (MediaError, 422, "unreadable_media"),
    (InputError, 422, "bad_input"),
    (StoreError, 503, "store_unavailable"),
)


def failure(error: BaseException, request_id: str | None = None) -> Failure:
    """The failure to show for an error. Only our own errors' words reach the sender; others are logged."""
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return Failure(status, code, error.message, error.hint)
    log.error("request failed", exc_info=error, extra={"request_id": request_id} if request_id else None)
    return INTERNAL


def answer(
    envelopes: Sequence[Envelope], generation: str | None, work: Callable[[list[Any]], Sequence[Any]]
) -> list[Result]:
    """Run `work` on the payloads that can still be answered, and give one result per envelope, in order.

    Args:
        generation: which one `work` answers from; ANY; None: it has none to answer from.
        work: payloads → one value or exception each. If it raises, each payload is tried alone, so that only the
            payload at fault fails.
    """
    now = time.time()
    results: dict[int, Result] = {}
    for i, envelope in enumerate(envelopes):
        if envelope.deadline <= now:
            results[i] = Result(envelope.request_id, error=EXPIRED)
        elif generation not in (ANY, envelope.generation):
            results[i] = Result(envelope.request_id, error=UNAVAILABLE)
    live = [i for i in range(len(envelopes)) if i not in results]
    values = _values([envelopes[i].payload for i in live], work)
    for i, value in zip(live, values, strict=True):
        error = failure(value, envelopes[i].request_id) if isinstance(value, Exception) else None
        results[i] = Result(envelopes[i].request_id, None if error else value, error)
    return [results[i] for i in range(len(envelopes))]


def _values(payloads: list[Any], work: Callable[[list[Any]], Sequence[Any]]) -> Sequence[Any]:
    if not payloads:
        return []
    try:
        return work(payloads)
    except Exception as error:
        if len(payloads) == 1:
            return [error]
    return [_values([payload], work)[0] for payload in payloads]
