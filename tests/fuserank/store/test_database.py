"""The store: what goes in comes out once, bad rows are refused with a reason, concurrent callers share commits."""

import datetime
import sqlite3
import threading
import time

import pytest

from fuserank.errors import StoreError
from fuserank.records.schema import EVENT, IMPRESSION
from fuserank.store import engine
from fuserank.store.database import Database, run_database
from fuserank.store.tables import METADATA

CLICK = {"event_id": "e1", "type": "click", "product_id": "p1", "user_id": "u1", "timestamp": "2026-03-01T10:00:00Z"}


@pytest.fixture
def url(tmp_path) -> str:
    return run_database(tmp_path / "a run, with: odd % name?")[1]


@pytest.fixture
def database(url):
    with Database(url) as database:
        yield database


def test_events_come_out_as_the_schema_says(database):
    event = {**CLICK, "session_id": "s", "request_id": "r", "position": 3, "value": 12.5}
    assert database.add_events([event]).accepted == 1
    table = database.read_events()
    assert table.schema == EVENT
    assert table.to_pylist() == [{**event, "query_id": None, "timestamp": datetime.datetime(2026, 3, 1, 10)}]


def test_impressions_come_out_as_the_schema_says(database):
    shown = {
        "request_id": "r1",
        "kind": "search",
        "query": "röd",
        "candidate_ids": ["a", "b", "c"],
        "product_ids": ["b", "a"],
        "propensities": [0.5, None],
        "features": '{"x": 1}',
        "timestamp": 1_772_359_200_000,
    }
    result = database.add_impressions([shown, shown, {**shown, "request_id": "r2", "kind": "guess"}])
    assert (result.accepted, result.duplicates) == (1, 1)
    assert "kind must be" in result.rejected[0]["reason"]
    table = database.read_impressions()
    assert table.schema == IMPRESSION
    (row,) = table.to_pylist()
    assert {name: row[name] for name in shown if name != "timestamp"} == {
        name: value for name, value in shown.items() if name != "timestamp"
    }
    assert row["timestamp"] == datetime.datetime(2026, 3, 1, 10)


def test_idempotent_by_event_id(database):
    twice = database.add_events([CLICK, {**CLICK, "product_id": "other"}])
    again = database.add_events([CLICK, {**CLICK, "event_id": "e2"}])
    assert (twice.accepted, twice.duplicates) == (1, 1)
    assert (again.accepted, again.duplicates) == (1, 1)
    assert [row["product_id"] for row in database.read_events().to_pylist()] == ["p1", "p1"]


def test_an_event_without_an_id_is_stored_once_if_it_says_when(database):
    bare = {name: value for name, value in CLICK.items() if name != "event_id"}
    assert database.add_events([bare]).accepted == 1
    assert database.add_events([bare]).duplicates == 1
    assert database.add_events([{**bare, "product_id": "p2"}]).accepted == 1
    timeless = {"type": "view", "product_id": "p1"}
    assert database.add_events([timeless, timeless]).accepted == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "glance"}, "type must be one of"),
        ({"type": None}, "type must be one of"),
        ({"type": ["click"]}, "type must be one of"),
        ({"product_id": None}, "product_id is missing"),
        ({"product_id": 7}, "product_id must be text"),
        ({"user_id": "u" * 257}, "user_id is longer than 256"),
        ({"event_id": "e" * 129}, "event_id is longer than 128"),
        ({"session_id": "a\0b"}, "cannot be stored"),
        ({"request_id": "\ud800"}, "cannot be stored"),
        ({"timestamp": "yesterday"}, "timestamp is not"),
        ({"timestamp": 1_772_359_200}, "milliseconds"),
        ({"timestamp": float("nan")}, "timestamp is not"),
        ({"timestamp": True}, "timestamp is not"),
        ({"timestamp": 10**400}, "timestamp"),
        ({"timestamp": "2199-01-01T00:00:00Z"}, "more than a day ahead"),
        ({"position": -1}, "position"),
        ({"position": 2**31}, "position"),
        ({"position": 1.5}, "position"),
        ({"position": True}, "position"),
        ({"value": float("inf")}, "value"),
        ({"value": 10**400}, "value"),
        ({"value": "12"}, "value"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_holds_up_no_other(database, change, reason):
    result = database.add_events([{**CLICK, "event_id": "before"}, {**CLICK, **change}, {**CLICK, "event_id": "after"}])
    assert result.accepted == 2
    assert result.rejected[0]["index"] == 1
    assert reason in result.rejected[0]["reason"]


def test_rows_that_are_no_objects(database):
    result = database.add_events([None, 3, "x", []])  # type: ignore[list-item]
    assert [entry["index"] for entry in result.rejected] == [0, 1, 2, 3]


def test_recent_events_are_the_latest_by_their_own_time_oldest_first(database):
    start = 1_772_359_200_000
    late_first = [{**CLICK, "event_id": f"e{i}", "timestamp": start + i * 1000} for i in (5, 1, 4, 2, 3)]
    other = [{**CLICK, "event_id": "x", "user_id": "u2"}, {**CLICK, "event_id": "d", "type": "dislike"}]
    database.add_events([*late_first, *other])
    found = database.recent_events("u1", 3)
    assert [event["event_id"] for event in found] == ["e3", "e4", "e5"]
    assert found[-1]["timestamp"] == start + 5000
    assert "d" in [event["event_id"] for event in database.recent_events("u1", 100)]
    assert "d" not in [event["event_id"] for event in database.recent_events("u1", 100, ("click",))]
    assert database.recent_events("nobody", 3) == []


def test_reading_since_goes_by_arrival_so_late_events_are_seen(database):
    database.add_events([CLICK])
    time.sleep(0.005)
    mark = time.time_ns() // 1_000_000
    database.add_events([{**CLICK, "event_id": "late", "timestamp": "2025-01-01T00:00:00Z"}])
    assert database.read_events(mark).column("event_id").to_pylist() == ["late"]
    assert database.read_events().column("event_id").to_pylist() == ["late", "e1"]


def test_concurrent_callers_share_commits_and_get_their_own_counts(database):
    database.add_events([{**CLICK, "event_id": f"{n}-0-0"} for n in range(8)])
    before, results = database.commits, {}

    def write(n: int) -> None:
        results[n] = [
            database.add_events([{**CLICK, "event_id": f"{n}-{call}-{i}"} for i in range(4)]) for call in range(25)
        ]

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all([r.accepted for r in results[n]] == [3] + [4] * 24 for n in range(8))
    assert all([r.duplicates for r in results[n]] == [1] + [0] * 24 for n in range(8))
    assert database.read_events().num_rows == 8 * 25 * 4
    assert database.commits - before < 8 * 25


def test_the_same_event_from_two_callers_counts_once(database):
    barrier, accepted = threading.Barrier(6), []

    def write() -> None:
        for i in range(20):
            barrier.wait()
            accepted.append(database.add_events([{**CLICK, "event_id": f"same{i}"}]).accepted)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(accepted) == 20


def test_settings_are_durable(database, url):
    with database._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_migrations_from_empty_and_again(tmp_path):
    file, url = run_database(tmp_path)
    for _ in range(2):
        Database(url).close()
    with sqlite3.connect(file) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"alembic_version", *METADATA.tables}
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0007",)]


def test_migrations_make_the_tables_the_code_declares(database):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with database._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("not a url", "malformed"),
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("mysql://user:secret@host/db", "not supported"),
    ],
)
def test_urls_that_cannot_be(url, message):
    with pytest.raises(StoreError, match=message):
        Database(url)


def test_postgresql_without_its_driver(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"pip install psycopg\[binary\]"):
        Database("postgresql://user:secret@localhost/db")


def test_a_broken_database_is_named_without_its_password(tmp_path):
    file, url = run_database(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"this is no database, it only lies where one should be" * 100)
    with pytest.raises(StoreError, match=r"fuserank\.db failed"):
        Database(url)


def test_a_failing_database_fails_the_call_and_later_ones_work(database):
    with database._engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO hidden")
        connection.commit()
        with pytest.raises(StoreError, match="failed"):
            database.add_events([CLICK])
        with pytest.raises(StoreError, match="failed"):
            database.recent_events("u1", 3)
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO events")
        connection.commit()
    assert database.add_events([CLICK]).accepted == 1


def test_a_closed_database_refuses(url):
    database = Database(url)
    database.close()
    database.close()
    with pytest.raises(StoreError, match="closed"):
        database.add_events([CLICK])
