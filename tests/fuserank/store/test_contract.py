"""What every kind of database must do alike: events, impressions, changes in order, vectors, generations, schema."""

import multiprocessing
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from fuserank.errors import StoreError
from fuserank.store.changes import Edit, StoredVectors
from fuserank.store.database import Database
from fuserank.store.engine import MIGRATIONS, open_engine, refuse_on_a_cluster
from fuserank.store.tables import METADATA

CLICK = {"event_id": "e1", "type": "click", "product_id": "p1", "user_id": "u1", "timestamp": "2026-03-01T10:00:00Z"}
IMPORTED = {"old": {"product_id": "old", "title": "Old", "attributes": {"size": ["S"], "colour": ["red"]}}}
SOME = StoredVectors(b"\x00\x01\xff", b"\x01", b"\x02\x00")


def upsert(product_id: str, **values: Any) -> Edit:
    return Edit("upsert", product_id, {"product_id": product_id, **values})


def test_events_and_impressions_are_stored_once(any_database: Database):
    assert any_database.add_events([CLICK, CLICK, {**CLICK, "event_id": "e2", "user_id": "röd 红"}]).accepted == 2
    assert any_database.add_events([CLICK]).duplicates == 1
    assert any_database.recent_events("röd 红", 5)[0]["event_id"] == "e2"
    shown = {"request_id": "r", "kind": "search", "product_ids": ["a"], "propensities": [0.5]}
    assert any_database.add_impressions([shown, shown]).accepted == 1
    assert any_database.read_impressions().to_pylist()[0]["product_ids"] == ["a"]


def test_what_a_user_was_shown_is_told_with_what_they_turned_to(any_database: Database):
    then, users = 1_780_000_000_000, ["u1", "u2", "u1", "u1", "u1"]
    answers = [
        {"request_id": f"r{n}", "kind": "recommend", "product_ids": [f"p{n}", "x"], "user_id": u, "timestamp": then + n}
        for n, u in enumerate(users)
    ]
    assert any_database.add_impressions(answers[::-1]).accepted == 5  # not in the order of their times
    told = [("r0", "p0", "click"), ("r3", "x", "click"), ("r3", "p3", "impression"), ("r1", "x", "click")]
    for request, product, kind in told:
        any_database.add_events([{"type": kind, "product_id": product, "user_id": "u1", "request_id": request}])
    found = any_database.shown("u1", 3, ("click", "purchase"))
    assert [(one.timestamp, one.product_ids, set(one.turned)) for one in found] == [
        (then + 2, ("p2", "x"), set()), (then + 3, ("p3", "x"), {"x"}), (then + 4, ("p4", "x"), set()),
    ]  # fmt: skip
    assert any_database.shown("nobody", 3, ("click",)) == []


def test_changes_build_on_one_another_and_on_what_was_imported(any_database: Database):
    edits = [
        upsert("new", title="New", price="1.00"),
        Edit("patch", "old", {"title": None, "attributes": {"size": None, "material": ["wool"]}, "in_stock": True}),
        Edit("patch", "new", {"price": "2.00"}),
        Edit("delete", "nobody"),
        Edit("delete", "old"),
        Edit("patch", "old", {"title": "Gone"}),
    ]
    outcomes = any_database.add_changes(edits, IMPORTED.get)
    assert [outcome.seq for outcome in outcomes] == [1, 2, 3, None, 4, None]
    assert "no product of this id" in outcomes[5].reason
    changes = any_database.read_changes(0)
    assert [(change.seq, change.product_id, change.kind) for change in changes] == [
        (1, "new", "upsert"), (2, "old", "patch"), (3, "new", "patch"), (4, "old", "delete"),
    ]  # fmt: skip
    assert changes[1].record == {
        "product_id": "old", "in_stock": True, "attributes": {"colour": ["red"], "material": ["wool"]},
    }  # fmt: skip
    assert changes[2].record == {"product_id": "new", "title": "New", "price": "2.00"}
    assert changes[3].record is None
    assert any_database.products(["new", "old", "other"]) == {"new": changes[2].record, "old": None}
    assert any_database.records_before(changes) == {
        1: (False, None), 2: (False, None), 3: (True, changes[0].record), 4: (True, changes[1].record),
    }  # fmt: skip
    assert [change.seq for change in any_database.read_changes(2, limit=1)] == [3]
    assert any_database.last_change() == 4


def test_numbers_have_no_gaps_and_a_reader_misses_none_whoever_writes(any_database: Database, any_url: str):
    """Two databases on one file or server, three threads each, and a reader that follows from the start."""
    done, read = threading.Event(), []

    def follow() -> None:
        seq = 0
        while not done.is_set() or any_database.last_change() > seq:
            for change in any_database.read_changes(seq):
                read.append(change.seq)
                seq = change.seq

    with Database(any_url) as other:
        follower = threading.Thread(target=follow)
        follower.start()

        def slow(product_id: str) -> dict[str, Any]:  # called between reading the last number and writing the next
            time.sleep(0.005)
            return {"product_id": product_id}

        def write(database: Database, name: str) -> None:
            for i in range(8):
                database.add_changes([Edit("patch", f"{name}-{i}", {}), upsert("shared", title=name)], slow)

        threads = [threading.Thread(target=write, args=(d, f"{n}{t}")) for n, d in enumerate((any_database, other))
                   for t in range(3)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        follower.join()
    assert read == list(range(1, 97))
    assert any_database.commits < 3 * 8 + 1


def test_a_work_that_raises_undoes_only_itself(any_database: Database):
    def fail(product_id: str) -> None:
        raise KeyError(product_id)

    with pytest.raises(KeyError):
        any_database.add_changes([upsert("a"), Edit("patch", "b", {"title": "x"})], fail)
    assert any_database.last_change() == 0
    assert any_database.add_changes([upsert("a")], fail)[0].seq == 1


def test_vectors_are_kept_once_for_each_generation(any_database: Database):
    any_database.add_changes(
        [upsert("a"), upsert("b"), Edit("delete", "b"), upsert("a", in_stock=True)], lambda _: None
    )
    assert any_database.unencoded_change("g1") == 1
    other = StoredVectors(b"other", b"", b"other")
    any_database.add_vectors("g1", {1: ("a", SOME), 2: ("b", SOME)})
    any_database.add_vectors("g1", {1: ("a", other)})  # a second encoder came late
    assert any_database.unencoded_change("g1") == 4  # a delete needs none
    any_database.add_vectors("g1", {4: ("a", None)})
    any_database.add_vectors("g2", {1: ("a", other)})
    assert any_database.unencoded_change("g1") is None
    assert any_database.unencoded_change("g2") == 2
    changes = any_database.read_changes(0, "g1")
    assert [(change.encoded, change.vectors) for change in changes] == [
        (True, SOME), (True, SOME), (False, None), (True, None),
    ]  # fmt: skip
    assert any_database.latest_vectors("g1", ["a", "b"], 4) == {"a": SOME, "b": SOME}
    assert any_database.latest_vectors("g1", ["a", "b"], 2) == {"a": SOME}
    assert any_database.latest_vectors("g2", ["a"], 9) == {"a": other}


def test_one_generation_is_active(any_database: Database):
    for name in ("g1", "g2"):
        any_database.add_generation(name, f"/{name}", 3, "ready")
    for name in ("g1", "g2", "g2"):
        any_database.activate_generation(name)
    found = {generation.id: generation for generation in any_database.generations()}
    assert {name: generation.state for name, generation in found.items()} == {"g1": "retired", "g2": "active"}
    assert found["g2"].base_seq == 3
    assert found["g2"].activated_at is not None
    with pytest.raises(StoreError, match="no generation 'g3'"):
        any_database.activate_generation("g3")
    assert [g.state for g in any_database.generations() if g.id == "g2"] == ["active"]  # undone as a whole


def test_the_schema_is_what_the_code_declares(any_database: Database):
    with any_database._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_an_older_schema_is_migrated_with_its_data(any_url: str):
    engine = open_engine(any_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert set(sa.inspect(connection).get_table_names()) == {"alembic_version", "events", "impressions"}
        connection.execute(
            sa.text(
                "INSERT INTO events (event_id, type, product_id, timestamp, stored) VALUES ('e', 'view', 'p', 5, 6)"
            )
        )
    engine.dispose()
    with Database(any_url) as database:
        assert database.read_events().column("event_id").to_pylist() == ["e"]
        assert database.add_changes([upsert("a")], lambda _: None)[0].seq == 1


def _open(url: str, name: str, start: Any, errors: Any) -> None:
    start.wait()
    try:
        with Database(url) as database:
            database.add_changes([upsert(name)], lambda _: None)
    except Exception as error:
        errors.put(repr(error))


def test_processes_may_open_a_new_database_at_the_same_time(any_url: str):
    context = multiprocessing.get_context("spawn")
    start, errors = context.Event(), context.Queue()
    processes = [context.Process(target=_open, args=(any_url, f"p{i}", start, errors)) for i in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert errors.empty()
    with Database(any_url) as database:
        assert {change.product_id for change in database.read_changes(0)} == {"p0", "p1", "p2"}


def test_a_server_that_is_gone_is_named_without_its_password(postgres_url: str):
    url = sa.make_url(postgres_url.format("nowhere")).set(password="hush")
    with pytest.raises(StoreError, match="nowhere") as caught:
        Database(url.render_as_string(hide_password=False))
    assert "hush" not in str(caught.value)


def test_sqlite_is_refused_on_more_than_one_node(tmp_path):
    refuse_on_a_cluster(f"sqlite:///{tmp_path}/a.db", 1)
    refuse_on_a_cluster("postgresql://user@host/db", 3)  # whether or not its driver is here
    with pytest.raises(StoreError, match="PostgreSQL database: postgresql://"):
        refuse_on_a_cluster(f"sqlite:///{tmp_path}/a.db", 2)
