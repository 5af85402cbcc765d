"""The HTTP request that is being answered: its id and what the log will say of it. Read anywhere below the gateway."""

import math
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Current:
    """One request, from its first byte to the end of its answer."""

    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=time.perf_counter)
    endpoint: str = "unknown"  # the route's template, never the path itself
    key: str | None = None  # the API key's id
    status: int = 0  # of the answer, once it has begun
    code: str | None = None  # of the error that was answered
    arrived: float = field(default_factory=time.time)  # at this machine's front, seconds since the epoch
    deadline: float | None = None  # the same
    streams: bool = False  # its answer ends when the listener goes: its time says nothing of ours


OLDEST = 60.0  # seconds; what is older was stamped by another clock

CURRENT: ContextVar[Current | None] = ContextVar("current", default=None)


def request_id() -> str:
    """The id of the request being answered, a new one outside of any. Never the sender's own: impressions and events
    are joined by it."""
    current = CURRENT.get()
    return uuid.uuid4().hex if current is None else current.request_id


def arrived() -> float:
    """When the request being answered reached the front, seconds since the epoch; now outside of any."""
    current = CURRENT.get()
    return time.time() if current is None else current.arrived


def stamped(start: str | None) -> float:
    """The time that the proxy in front put into X-Request-Start (`t=` and milliseconds since the epoch): what waited
    for this process to have time for it has waited. Now, where there is none of the last OLDEST seconds."""
    now = time.time()
    try:
        told = float((start or "").removeprefix("t=")) / 1000
    except ValueError:
        return now
    return told if now - OLDEST < told < now else now


def time_left() -> float:
    """Seconds until the deadline of the request being answered; infinite outside of any, or where it has none."""
    current = CURRENT.get()
    return math.inf if current is None or current.deadline is None else current.deadline - time.time()
