"""Queries, judgments and events: validated, ordered, set aside."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from fuserank.errors import ConfigError
from fuserank.records import events
from fuserank.records.events import read_events
from fuserank.records.mapping import ColumnMap
from fuserank.records.quarantine import Quarantine
from fuserank.records.queries import JUDGMENT_FIELDS, QUERY_FIELDS, read_judgments, read_queries
from fuserank.records.schema import EVENT


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows))


def test_a_published_split_comes_before_the_hash(tmp_path: Path) -> None:
    rows = [{"query_id": f"q{n}", "text": "red shoes", "group": group} for n, group in enumerate(["test", "x", None])]
    write(tmp_path / "q.jsonl", rows)
    columns = ColumnMap(QUERY_FIELDS, {}, {}, key="records.queries")
    aside = Quarantine("queries")
    found = read_queries(
        tmp_path, ["q.jsonl"], columns, aside, "text", lambda key: "training", groups={"test": "evaluation"}
    )
    assert found["split"].to_pylist() == ["evaluation", "training", "training"]


def test_queries_and_judgments(tmp_path: Path) -> None:
    rows = [
        {"query_id": "q2", "text": "red  shoes"},
        {"query_id": "q1", "image": "x.png", "user_id": 5},
        {"query_id": "q2", "text": "again"},
        {"query_id": "q3", "text": " "},
        {"text": "no id"},
    ]
    write(tmp_path / "q.jsonl", rows)
    aside = Quarantine("queries")
    columns = ColumnMap(QUERY_FIELDS, {}, {}, key="records.queries")
    found = read_queries(tmp_path, ["q.jsonl"], columns, aside, "text", lambda key: f"<{key}>")
    assert [(q["query_id"], q["text"], q["image"], q["split"]) for q in found.to_pylist()] == [
        ("q1", None, "x.png", "<q1>"),
        ("q2", "red shoes", None, "<red shoes>"),
    ]
    assert aside.counts() == {"row: duplicate query_id": 1, "row: empty query": 1, "row: missing query_id": 1}
    aside.check(found.num_rows, 1.0)
    write(tmp_path / "twice.jsonl", [rows[0], rows[0], {**rows[0], "user_id": 7}])
    twice = Quarantine("queries")
    assert read_queries(tmp_path, ["twice.jsonl"], columns, twice, "text", str).num_rows == 1
    assert (twice.rows_in, twice.repeated, twice.rows) == (3, 1, 1)  # the third says something else
    twice.check(1, 1.0)
    with pytest.raises(ConfigError, match=r"records\.split\.key"):
        read_queries(tmp_path, ["q.jsonl"], columns, aside, "title", str)

    (tmp_path / "j.csv").write_text(
        "query_id,product_id,grade\nq2,b,2\nq2,a,0.5\nq2,b,1\nq9,a,1\nq2,z,1\nq1,a,-1\nq1,b,x\nq2,b-red,3\n"
    )
    aside = Quarantine("judgments")
    columns = ColumnMap(JUDGMENT_FIELDS, {}, {}, key="records.judgments")
    judged = read_judgments(tmp_path, ["j.csv"], columns, aside, {"q1", "q2"}, {"a": "a", "b": "b", "b-red": "b"})
    assert [tuple(row.values()) for row in judged.to_pylist()] == [("q2", "a", 0.5), ("q2", "b", 3.0)]
    assert aside.counts() == {
        "row: bad grade": 2, "row: duplicate judgment": 1, "row: unknown product": 1, "row: unknown query": 1,
    }  # fmt: skip
    aside.check(judged.num_rows, 1.0)
    assert aside.merged == 1


def test_events(tmp_path: Path) -> None:
    good = {"event_id": "e1", "type": "click", "product_id": "a", "timestamp": 1714557600000, "position": 3}
    rows = [
        {**good, "event_id": "e9", "timestamp": "2024-05-01T10:00:05Z", "value": 9.5, "product_id": "a-red"},
        good,
        good,
        {**good, "event_id": "e2", "type": "stare"},
        {**good, "event_id": "e3", "product_id": "z"},
        {**good, "event_id": "e4", "timestamp": None},
        {**good, "event_id": "e5", "timestamp": "soon"},
        {**good, "event_id": "e6", "position": 1.5},
    ]
    write(tmp_path / "e.jsonl", rows)
    aside = Quarantine("events")
    columns, known = ColumnMap(events.FIELDS, {}, {}, key="records.events"), {"a": "a", "a-red": "a"}
    found = read_events(tmp_path, ["e.jsonl"], columns, aside, known)
    assert found.schema.equals(EVENT)
    assert found["event_id"].to_pylist() == ["e1", "e9"]
    assert found["timestamp"].to_pylist() == [datetime(2024, 5, 1, 10), datetime(2024, 5, 1, 10, 0, 5)]
    assert found["position"].to_pylist() == [3, 3]
    assert found["product_id"].to_pylist() == ["a", "a"]
    assert aside.counts() == {
        "row: bad value": 2, "row: duplicate event_id": 1, "row: missing timestamp": 1,
        "row: unknown event type": 1, "row: unknown product": 1,
    }  # fmt: skip
    aside.check(found.num_rows, 1.0)
