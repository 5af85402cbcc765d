"""Outliers, bots and sessions, planted and found."""

from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa

from fuserank.records.flags import bot_like, price_outliers, with_sessions
from fuserank.records.schema import EVENT

START = datetime(2024, 1, 1)


def log(*rows: tuple[str | None, float]) -> pa.Table:
    """Events of (user, minute), in time order."""
    found = [
        {"event_id": str(i), "type": "view", "user_id": user, "product_id": "p"}
        | {"timestamp": START + timedelta(minutes=minute)}
        for i, (user, minute) in enumerate(sorted(rows, key=lambda row: row[1]))
    ]
    return pa.Table.from_pylist(found, schema=EVENT)


def test_a_slipped_decimal_point_is_found() -> None:
    random = np.random.default_rng(0)
    prices = [Decimal(f"{price:.2f}") for price in np.exp(random.normal(3, 0.5, 200))]
    prices[7], prices[9] = Decimal("0.01"), Decimal("99999.00")
    names, euros = [f"p{i:03}" for i in range(202)], ["EUR"] * 202
    table = pa.table({"product_id": names, "price": [*prices, None, Decimal(0)], "currency": euros})
    flags = price_outliers(table).to_pylist()
    assert [(flag["record"], flag["id"], flag["flag"]) for flag in flags] == [
        ("product", "p007", "price outlier"),
        ("product", "p009", "price outlier"),
    ]
    assert flags[1]["detail"].startswith("99999 EUR, median ")
    other = table.set_column(2, "currency", pa.array(["EUR"] * 9 + ["JPY"] + ["EUR"] * 192))
    assert [flag["id"] for flag in price_outliers(other).to_pylist()] == ["p007"]  # one price in yen is no outlier


def test_bots_are_told_from_people() -> None:
    busy = [("person", minute) for minute in range(300)]  # 61 within any hour, ends included
    robot = [("robot", second / 60) for second in range(0, 300, 3)]
    events = log(*busy, *robot, (None, 1))
    assert [(f["id"], f["detail"]) for f in bot_like(events, 61).to_pylist()] == [
        ("robot", "100 events within an hour")
    ]
    assert [f["id"] for f in bot_like(events, 60).to_pylist()] == ["person", "robot"]


def test_a_pause_begins_a_session() -> None:
    events = log(("a", 0), ("a", 30), ("a", 60.1), ("b", 61), ("a", 62), (None, 63))
    assert with_sessions(events, 30)["session_id"].to_pylist() == ["a#0", "a#0", "a#1", "b#0", "a#1", None]
    given = events.set_column(3, EVENT.field(3), pa.array(["own", *[None] * 5], pa.string()))
    assert with_sessions(given, 30)["session_id"].to_pylist() == ["own", "a#0", "a#1", "b#0", "a#1", None]
    assert with_sessions(events, 30).schema.equals(EVENT)
