"""Joining events to impressions: late, early, twice, orphaned; one row a shown product."""

import datetime
import random

import pyarrow as pa
import pytest

from fuserank.feedback.joins import JOINED, join, rates
from fuserank.records.schema import EVENT, IMPRESSION

SHOWN = datetime.datetime(2026, 3, 1, 10)


def impression(request_id: str, *products: str, kind: str = "search", **more) -> dict:
    return {"request_id": request_id, "kind": kind, "product_ids": list(products), "timestamp": SHOWN, **more}


def event(name: str, request_id: str | None, product: str, type: str = "click", seconds: float = 5, **more) -> dict:
    when = SHOWN + datetime.timedelta(seconds=seconds)
    return {"event_id": name, "request_id": request_id, "product_id": product, "type": type, "timestamp": when, **more}


def joined(impressions: list[dict], events: list[dict]):
    return join(pa.Table.from_pylist(impressions, schema=IMPRESSION), pa.Table.from_pylist(events, schema=EVENT))


def test_one_row_a_shown_product():
    result = joined([impression("r1", "a", "b", propensities=[0.9, 0.1], user_id="u")], [event("1", "r1", "b")])
    assert result.rows.schema == JOINED
    first, second = result.rows.to_pylist()
    assert (first["product_id"], first["position"], first["clicked"], first["first_event"]) == ("a", 0, False, None)
    assert (second["product_id"], second["position"], second["clicked"]) == ("b", 1, True)
    assert (first["propensity"], second["propensity"], second["user_id"]) == (0.9, 0.1, "u")
    assert second["first_event"] == SHOWN + datetime.timedelta(seconds=5)


def test_late_early_repeated_and_out_of_order_events():
    events = [
        event("4", "r1", "a", "purchase", 86_400 * 30, value=20.0),
        event("2", "r1", "a", "click", 60),
        event("1", "r1", "a", "view", -2),
        event("2", "r1", "a", "click", 60),
        event("3", "r1", "a", "add_to_cart", 90),
        event("5", "r1", "a", "purchase", 86_400 * 31, value=5.5),
        event("6", "r1", "a", "impression", -60),
    ]
    wanted = None
    for seed in range(5):
        random.Random(seed).shuffle(events)
        result = joined([impression("r1", "a")], events)
        (row,) = result.rows.to_pylist()
        assert (row["clicked"], row["added"], row["purchased"], row["value"], row["events"]) == (
            True,
            True,
            True,
            25.5,
            5,
        )
        assert row["first_event"] == SHOWN - datetime.timedelta(seconds=2)
        assert (result.events["joined"], result.events["duplicate"], result.events["early"]) == (6, 1, 1)
        assert wanted is None or result.rows.equals(wanted)
        wanted = result.rows


def test_orphans_are_reported():
    events = [event("1", "r1", "z"), event("2", "gone", "a"), event("3", None, "a"), event("4", "r1", "a")]
    result = joined([impression("r1", "a")], events)
    assert {row["event_id"]: row["reason"] for row in result.orphans.to_pylist()} == {
        "1": "not_shown",
        "2": "unknown_request",
    }
    counts = result.events
    assert (counts["joined"], counts["not_shown"], counts["unknown_request"], counts["without_request"]) == (1, 1, 1, 1)
    assert sum(result.rows.column("clicked").to_pylist()) == 1


def test_a_product_shown_twice_counts_at_its_first_place():
    result = joined([impression("r1", "a", "b", "a")], [event("1", "r1", "a")])
    assert result.rows.column("position").to_pylist() == [0, 1]


def test_rates_by_kind_and_position():
    impressions = [impression(f"s{i}", "a", "b") for i in range(4)] + [impression("x", "a", kind="recommend")]
    events = [event(f"{i}", f"s{i}", "a") for i in range(3)] + [event("p", "s0", "b", "purchase")]
    found = {(rate["kind"], rate["position"]): rate for rate in rates(joined(impressions, events).rows)}
    assert found["search", 0]["click_rate"] == pytest.approx(0.75)
    assert found["search", 1] == {
        "kind": "search", "position": 1, "shown": 4, "clicked": 0, "purchased": 1, "click_rate": 0.0,
    }  # fmt: skip
    assert found["recommend", 0]["shown"] == 1


def test_nothing_at_all():
    result = joined([], [])
    assert result.rows.num_rows == 0
    assert rates(result.rows) == []
