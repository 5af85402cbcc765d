"""One event or impression as a shop sent it → a row of the database, or the reason why not."""

import datetime
import json
import math
import uuid
from typing import Any

from fuserank.records.schema import EVENT_TYPES

ID_LENGTH = 256
EVENT_ID_LENGTH = 128
TEXT_LENGTH = 20_000  # a query
LIST_LENGTH = 10_000  # candidates of one answer
EARLIEST = 946_684_800_000  # 2000-01-01 in ms; smaller numbers are usually seconds
AHEAD = 86_400_000  # ms a clock may be fast
KINDS = ("search", "recommend", "similar")
REWARDS = {"clicked": "click", "purchased": "purchase"}
"""What a policy may learn from → the type of event that says so."""
_NAMESPACE = uuid.UUID("5b1e0d9a-4f0e-4b53-9d6b-0f6c0a3f7c11")
_EVENT_FIELDS = (
    "event_id", "type", "user_id", "session_id", "product_id", "request_id", "position", "value", "timestamp",
)  # fmt: skip
_IMPRESSION_FIELDS = (
    "request_id", "kind", "scenario", "query", "user_id", "session_id", "candidate_ids", "product_ids", "propensities",
    "slate_propensity", "features", "policy", "generation", "timestamp",
)  # fmt: skip


class RowError(ValueError):
    """Why a row was refused; never leaves the store."""


def event_row(event: Any, now: int) -> dict[str, Any]:
    """A row of EVENTS.

    Args:
        now: ms since 1970; the time of an event without one, and `stored`.

    Raises:
        RowError: with a short reason that names the field.
    """
    event = _known(event, _EVENT_FIELDS)
    if event.get("type") not in EVENT_TYPES:
        raise RowError(f"type must be one of {', '.join(EVENT_TYPES)}")
    row = {name: _text(event, name, ID_LENGTH) for name in ("user_id", "session_id", "request_id")}
    row |= {"type": event["type"], "product_id": _text(event, "product_id", ID_LENGTH, required=True)}
    row |= {"position": _position(event.get("position")), "value": _number(event.get("value"), "value")}
    row |= {"timestamp": _time(event.get("timestamp"), now), "stored": now}
    row["event_id"] = _text(event, "event_id", EVENT_ID_LENGTH) or _event_id(event, row)
    row["learnt"] = row["request_id"] is None or row["type"] not in REWARDS.values()
    return row


def impression_row(impression: Any, now: int) -> dict[str, Any]:
    """A row of IMPRESSIONS.

    Raises:
        RowError: with a short reason that names the field.
    """
    impression = _known(impression, _IMPRESSION_FIELDS)
    if impression.get("kind") not in KINDS:
        raise RowError(f"kind must be one of {', '.join(KINDS)}")
    row: dict[str, Any] = {"kind": impression["kind"]}
    row["request_id"] = _text(impression, "request_id", ID_LENGTH, required=True)
    row |= {n: _text(impression, n, ID_LENGTH) for n in ("scenario", "user_id", "session_id", "policy", "generation")}
    row |= {"query": _text(impression, "query", TEXT_LENGTH)}
    features = impression.get("features")
    row["features"] = features if isinstance(features, str | None) else _json(features, "features")
    for name in ("candidate_ids", "product_ids"):
        row[name] = _list(
            impression.get(name), name, lambda value: _text({"id": value}, "id", ID_LENGTH, required=True)
        )
    row["propensities"] = _list(impression.get("propensities"), "propensities", lambda v: _number(v, "propensities"))
    row["slate_propensity"] = _number(impression.get("slate_propensity"), "slate_propensity")
    row |= {"timestamp": _time(impression.get("timestamp"), now), "stored": now}
    row["learnt"] = row["features"] is None
    return row


def _known(record: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise RowError("must be an object")
    unknown = [str(name)[:40] for name in record if name not in fields]
    if unknown:
        raise RowError(f"unknown field {unknown[0]!r}")
    return record


def _text(record: dict, name: str, longest: int, required: bool = False) -> str | None:
    value = record.get(name)
    if value is None or value == "":
        if required:
            raise RowError(f"{name} is missing")
        return None
    if not isinstance(value, str):
        raise RowError(f"{name} must be text")
    if len(value) > longest:
        raise RowError(f"{name} is longer than {longest} characters")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise RowError(f"{name} holds characters that cannot be stored")
    return value


def _position(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise RowError("position must be a whole number from 0")
    return value


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    number = _finite(value)
    if number is None:
        raise RowError(f"{name} must be a finite number")
    return number


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _time(value: Any, now: int) -> int:
    if value is None:
        return now
    if isinstance(value, datetime.datetime):
        value = value.isoformat()
    if isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise RowError("timestamp is not ISO 8601 or milliseconds") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        value = (moment - epoch) // datetime.timedelta(milliseconds=1)
    if _finite(value) is None:
        raise RowError("timestamp is not ISO 8601 or milliseconds")
    if value < EARLIEST:
        raise RowError("timestamp lies before 2000: give milliseconds since 1970")
    if value > now + AHEAD:
        raise RowError("timestamp lies more than a day ahead")
    return int(value)


def _list(values: Any, name: str, one: Any) -> str | None:
    if values is None:
        return None
    if not isinstance(values, list | tuple) or len(values) > LIST_LENGTH:
        raise RowError(f"{name} must be a list of at most {LIST_LENGTH}")
    return _json([one(value) for value in values], name)


def _json(value: Any, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError):
        raise RowError(f"{name} is not JSON") from None


def _event_id(event: dict, row: dict[str, Any]) -> str:
    """The same event sent again gives the same id, as long as it says when it happened."""
    if event.get("timestamp") is None:
        return uuid.uuid4().hex
    told = {name: value for name, value in row.items() if name not in ("stored", "event_id")}
    return uuid.uuid5(_NAMESPACE, json.dumps(told, sort_keys=True)).hex
