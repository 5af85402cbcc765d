"""A shop's behaviour log → clean events in time order. Reads table files through `mapping`, writes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuserank.files import Folder
from fuserank.records import fields, money
from fuserank.records.mapping import ColumnMap, joined, read_rows
from fuserank.records.quarantine import ROW, Quarantine
from fuserank.records.schema import EVENT, EVENT_TYPES

FIELDS = tuple(EVENT.names)


def read_events(
    root: Folder | Path, files: list[str], columns: ColumnMap, quarantine: Quarantine, products: Mapping[str, str]
) -> pa.Table:
    """All events of known types about known products, sorted by timestamp (then file order).

    A second event with the same id is set aside as "duplicate event_id". Where the log has no ids, an event's place
    (`<file>:<row>`) is its id.

    Args:
        products: id in the log → product_id (variants.known_ids).

    Returns:
        EVENT.
    """
    found: dict[str, dict[str, Any]] = {}
    for row, mapped, _ in read_rows(root, files, columns, quarantine):
        try:
            event = _event(mapped, columns)
        except (ValueError, TypeError, OverflowError) as error:
            quarantine.add(row.source, row.position, ROW, "bad value", error)
            continue
        event["event_id"] = event["event_id"] or f"{row.source}:{row.position}"
        problem = (
            "unknown event type"
            if event["type"] not in EVENT_TYPES
            else "unknown product"
            if event["product_id"] not in products
            else "missing timestamp"
            if event["timestamp"] is None
            else "duplicate event_id"
            if event["event_id"] in found
            else None
        )
        if problem is not None:
            detail = f"{event['event_id']} · {event['type']}"
            quarantine.add(row.source, row.position, ROW, problem, detail, event["product_id"])
            continue
        event["product_id"] = products[event["product_id"]]
        found[event["event_id"]] = event
    ordered = sorted(found.values(), key=lambda event: event["timestamp"])
    return pa.table([pa.array([event[f.name] for event in ordered], f.type) for f in EVENT], schema=EVENT)


def _event(mapped: dict[str, Any], columns: ColumnMap) -> dict[str, Any]:
    event: dict[str, Any] = {
        name: fields.identifier(joined(mapped.get(name)))
        for name in ("event_id", "type", "user_id", "session_id", "product_id", "request_id", "query_id")
    }
    event["position"] = fields.count(joined(mapped.get("position")))
    event["type"] = event["type"] and event["type"].lower()
    event["value"] = columns.scaled("value", money.amount(joined(mapped.get("value"))))
    event["timestamp"] = fields.moment(joined(mapped.get("timestamp")))
    return event
