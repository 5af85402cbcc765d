"""Search sessions of an event log: what was asked, shown and clicked, and what the user had turned to before.

N products · a session is one answer to one query (a request_id with a query_id).
"""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

import pyarrow as pa

from fuserank.feedback.history import HISTORY, TYPES, Turn, turns


@dataclass
class Session:
    """One answer."""

    request_id: str
    query_id: str
    user_id: str | None
    start: int  # ms, of its first event
    shown: dict[int, int] = field(default_factory=dict)  # product row → position
    clicked: set[int] = field(default_factory=set)  # product rows


def search_sessions(events: pa.Table, product_ids: list[str]) -> list[Session]:
    """Sessions with at least one click, in time order; events without a query are no part of any."""
    row_of = {product: row for row, product in enumerate(product_ids)}
    found: dict[str, Session] = {}
    for event in events.select(_COLUMNS).to_pylist():
        row = row_of.get(event["product_id"])
        if event["query_id"] is None or event["request_id"] is None or row is None:
            continue
        now = _milliseconds(event["timestamp"])
        mine = found.setdefault(
            event["request_id"], Session(event["request_id"], event["query_id"], event["user_id"], now)
        )
        mine.start = min(mine.start, now)
        if event["type"] in ("impression", "click") and event["position"] is not None:
            mine.shown[row] = event["position"]
        if event["type"] == "click":
            mine.clicked.add(row)
    return sorted((s for s in found.values() if s.clicked), key=lambda s: (s.start, s.request_id))


class Pasts:
    """Users' turns before a moment, as a service would have read them from its store at that moment."""

    def __init__(self, events: pa.Table, product_ids: list[str]):
        self._row_of = {product: row for row, product in enumerate(product_ids)}
        self._events: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        columns = ("user_id", "timestamp", "type", "product_id")
        for user, moment, kind, product in zip(*(events[name].to_pylist() for name in columns), strict=True):
            if user is not None and kind in TYPES:
                self._events[user].append((_milliseconds(moment), kind, product))
        for mine in self._events.values():
            mine.sort(key=lambda event: event[0])

    def before(self, user: str | None, moment: int) -> list[int]:
        """Product rows of the user's turns earlier than `moment` (ms), oldest first."""
        mine = self._events.get(user or "", [])
        stop = bisect_left(mine, moment, key=lambda event: event[0])
        latest: list[Turn] = [
            (self._row_of[product], kind, now / 1000)
            for now, kind, product in mine[max(0, stop - HISTORY) : stop]
            if product in self._row_of
        ]
        return [row for row, _, _ in turns(latest)]


_COLUMNS = ["request_id", "query_id", "user_id", "timestamp", "product_id", "type", "position"]


def _milliseconds(moment) -> int:
    return int(pa.scalar(moment, pa.timestamp("ms")).value)
