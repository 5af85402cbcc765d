"""Served records beside the shop's own: held-out queries teach nothing, the shop judges, nothing is twice."""

import pyarrow as pa
import pytest

from fuserank.errors import InputError
from fuserank.feedback.served import Served, query_key
from fuserank.records.queries import STAGED_QUERY
from fuserank.records.schema import EVENT, JUDGMENT, QUERY
from workloads.served import read_served, with_events, with_queries, write_served

RED, HAT, NEW = (query_key(text) for text in ("red shoe", "hat", "new one"))
KNOWN = {"a": "a", "b": "b", "a2": "a"}


def rows(schema: pa.Schema, *found: dict) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in found], schema)


@pytest.fixture
def served() -> Served:
    queries = [{"query_id": key, "text": "t", "split": "training"} for key in (RED, HAT, NEW)]
    judged = [(RED, "a2", 2.0), (RED, "b", 1.0), (HAT, "a", 1.0), (NEW, "b", 1.0), (NEW, "gone", 1.0)]
    events = [("e1", "a2", RED), ("e2", "b", HAT), ("e3", "b", NEW), ("e4", "gone", NEW), ("own", "a", None)]
    return Served(
        rows(EVENT, *({"event_id": e, "type": "click", "product_id": p, "query_id": q, "timestamp": n}
                      for n, (e, p, q) in enumerate(events))),
        rows(QUERY, *queries),
        rows(JUDGMENT, *({"query_id": q, "product_id": p, "grade": g} for q, p, g in judged)),
    )  # fmt: skip


def test_queries_and_judgments(served: Served) -> None:
    asked = rows(
        STAGED_QUERY,
        {"query_id": "q1", "text": "Red shoe", "split": "training", "source": "f"},
        {"query_id": "q2", "text": "hat", "split": "training", "source": "f"},
        {"query_id": "q3", "text": "HAT", "split": "evaluation", "source": "f"},
    )
    judged = rows(JUDGMENT, {"query_id": "q1", "product_id": "a", "grade": 0.0})
    asked, judged, same = with_queries(served, asked, judged, KNOWN)
    assert asked["query_id"].to_pylist() == ["q1", "q2", "q3", NEW]
    assert same == {RED: "q1", HAT: "q3", NEW: NEW}
    assert judged.to_pylist() == [
        {"query_id": "q1", "product_id": "a", "grade": 0.0},  # the shop's word stands against two clicks
        {"query_id": "q1", "product_id": "b", "grade": 1.0},
        {"query_id": NEW, "product_id": "b", "grade": 1.0},
    ]


def test_events(served: Served) -> None:
    own = rows(EVENT, {"event_id": "own", "type": "click", "product_id": "b", "timestamp": 2})
    found = with_events(served, own, KNOWN, {RED: "q1", HAT: "q3", NEW: NEW}).to_pylist()
    assert sorted((row["event_id"], row["product_id"], row["query_id"]) for row in found) == [
        ("e1", "a", "q1"), ("e2", "b", "q3"), ("e3", "b", NEW), ("own", "b", None),
    ]  # fmt: skip
    assert [row["timestamp"] for row in found] == sorted(row["timestamp"] for row in found)


def test_nothing_served_changes_nothing() -> None:
    asked, judged, events = STAGED_QUERY.empty_table(), JUDGMENT.empty_table(), EVENT.empty_table()
    assert with_queries(read_served(None), asked, judged, {}) == (asked, judged, {})
    assert with_events(None, events, {}, {}) is events


def test_written_and_read(served: Served, tmp_path) -> None:
    write_served(served, tmp_path / "served")
    found = read_served(str(tmp_path / "served"))
    assert found is not None
    assert all(getattr(found, name).equals(getattr(served, name)) for name in ("events", "queries", "judgments"))
    with pytest.raises(InputError, match=r"records\.served"):
        read_served(str(tmp_path))
