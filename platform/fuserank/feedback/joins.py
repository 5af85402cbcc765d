"""Joins what users did to what they were shown: one row a shown product. Reads two tables, writes nothing.

Events join by request and product whenever they arrive: late, early (a client's clock ran behind) or twice. Events that
name a request nobody answered, or a product it did not show, are orphans and are reported, never dropped silently.
"""

import datetime
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

JOINED = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),  # 0-based, as shown
        pa.field("kind", pa.string(), nullable=False),
        ("scenario", pa.string()),
        ("query", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("propensity", pa.float64()),
        ("policy", pa.string()),
        ("generation", pa.string()),
        pa.field("shown", pa.timestamp("ms"), nullable=False),
        pa.field("clicked", pa.bool_(), nullable=False),
        pa.field("added", pa.bool_(), nullable=False),  # to the cart
        pa.field("purchased", pa.bool_(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),  # sum of the purchases' values
        pa.field("events", pa.int32(), nullable=False),
        ("first_event", pa.timestamp("ms")),
    ]
)

_FLAGS = {"click": "clicked", "add_to_cart": "added", "purchase": "purchased"}


@dataclass(frozen=True)
class Joined:
    """The join and what did not join."""

    rows: pa.Table  # schema JOINED, by time shown, request and position
    orphans: pa.Table  # event_id, request_id, product_id, type, timestamp, reason
    events: dict[str, int]  # how many were joined, duplicate, without a request, orphans by reason, early


_ORPHANS = pa.schema(
    [
        ("event_id", pa.string()),
        ("request_id", pa.string()),
        ("product_id", pa.string()),
        ("type", pa.string()),
        ("timestamp", pa.timestamp("ms")),
        ("reason", pa.string()),
    ]
)


def join(impressions: pa.Table, events: pa.Table) -> Joined:
    """Impressions (schema IMPRESSION) and events (schema EVENT), both in any order → one row a shown product.

    An event of type "impression" confirms what the impression already says and changes nothing. A product shown twice
    in one answer counts at its first place.
    """
    slots = {(row["request_id"], row["product_id"]): row for row in _slots(impressions)}
    requests = set(impressions.column("request_id").to_pylist())
    counts, seen, orphans = Counter(), set(), []
    for event in events.to_pylist():
        if event["event_id"] in seen:
            counts["duplicate"] += 1
            continue
        seen.add(event["event_id"])
        if event["request_id"] is None:
            counts["without_request"] += 1
            continue
        row = slots.get((event["request_id"], event["product_id"]))
        if row is None:
            reason = "not_shown" if event["request_id"] in requests else "unknown_request"
            counts[reason] += 1
            orphans.append({name: event.get(name) for name in _ORPHANS.names} | {"reason": reason})
            continue
        counts["joined"] += 1
        _add(row, event, counts)
    rows = sorted(slots.values(), key=lambda row: (row["shown"], row["request_id"], row["position"]))
    names = ("joined", "duplicate", "without_request", "unknown_request", "not_shown", "early")
    return Joined(
        pa.Table.from_pylist(rows, schema=JOINED),
        pa.Table.from_pylist(orphans, schema=_ORPHANS),
        {name: counts[name] for name in names},
    )


def rates(joined: pa.Table) -> list[dict[str, Any]]:
    """Of each kind and position: shown, clicked, purchased and the share that was clicked."""
    shown, clicked, purchased = Counter(), Counter(), Counter()
    columns = [joined.column(name).to_pylist() for name in ("kind", "position", "clicked", "purchased")]
    for kind, position, click, purchase in zip(*columns, strict=True):
        shown[kind, position] += 1
        clicked[kind, position] += click
        purchased[kind, position] += purchase
    return [
        {
            "kind": kind,
            "position": position,
            "shown": shown[kind, position],
            "clicked": clicked[kind, position],
            "purchased": purchased[kind, position],
            "click_rate": clicked[kind, position] / shown[kind, position],
        }
        for kind, position in sorted(shown)
    ]


def _slots(impressions: pa.Table) -> Iterator[dict[str, Any]]:
    same = ("request_id", "kind", "scenario", "query", "user_id", "session_id", "policy", "generation")
    for impression in impressions.to_pylist():
        propensities = impression["propensities"] or []
        placed = set()
        for position, product_id in enumerate(impression["product_ids"] or []):
            if product_id in placed:
                continue
            placed.add(product_id)
            yield {name: impression[name] for name in same} | {
                "product_id": product_id,
                "position": position,
                "propensity": propensities[position] if position < len(propensities) else None,
                "shown": impression["timestamp"],
                "clicked": False,
                "added": False,
                "purchased": False,
                "value": 0.0,
                "events": 0,
                "first_event": None,
            }


def _add(row: dict[str, Any], event: dict[str, Any], counts: Counter) -> None:
    if event["type"] == "impression":
        return
    when: datetime.datetime = event["timestamp"]
    counts["early"] += when < row["shown"]
    row["events"] += 1
    if row["first_event"] is None or when < row["first_event"]:
        row["first_event"] = when
    if event["type"] in _FLAGS:
        row[_FLAGS[event["type"]]] = True
    if event["type"] == "purchase":
        row["value"] += event["value"] or 0.0
