"""A user is erased through HTTP: then no table and no file of the run holds the id, and nothing of before returns."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.records.schema import EVENT, QUARANTINE, QUERY
from fuserank.store.database import Database
from fuserank.store.erasures import digest
from fuserank.store.tables import METADATA
from serve.app import store_url
from serve.housekeeping import Housekeeping
from serve.routes import create_app
from tests.serve import conftest, shop
from tests.serve.test_policies import wait_for
from workloads import feedback
from workloads.erasing import without_erased

ANN, BOB = "ann-7d1f0c", "bob-55aa31"  # as no other bytes would be
FOLDERS = ("store", "preprocess", "feedback", "evaluate")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[TestClient, config.Experiment]]:
    experiment = shop.build_run(tmp_path)
    experiment = config.update(experiment, {"policy.online": {"scenarios": ["recommend", "search"]}})
    deployments = conftest.deploy(experiment)
    gateway = conftest.front(experiment, deployments)
    app = create_app(gateway, 200_000, "test", erase=deployments["feedback"].erase)
    with TestClient(app) as client:
        yield client, experiment
    gateway.held.stop()
    deployments["retriever"].held.stop()
    deployments["products"].__del__()
    deployments["feedback"].__del__()


def event(user: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "click", "product_id": "p03", "user_id": user, **more}


def live(client: TestClient, user: str) -> str:
    """A session of a user: searches, recommendations, clicks with and without the user's name. Its request id."""
    session = f"session of {user}"
    client.post("/v1/events", json=[event(user, session_id=session)])
    searched = client.post(
        "/v1/search", json={"text": f"hat for {user}", "user_id": user, "session_id": session}
    ).json()
    client.post("/v1/recommend", json={"user_id": user, "limit": 5})
    client.post("/v1/search", json={"text": "not signed in", "session_id": session})
    client.post("/v1/events", json=[event(None, request_id=searched["request_id"]), event(None, session_id=session)])
    return searched["request_id"]


def copies(run: Path) -> None:
    """What preprocess and evaluate leave of users."""
    (run / "evaluate").mkdir(exist_ok=True)
    people = [ANN, BOB, ANN]
    events = [dict.fromkeys(EVENT.names) | event(user, event_id=str(n), timestamp=n) for n, user in enumerate(people)]
    later = dict.fromkeys(EVENT.names) | event(ANN, event_id="later", timestamp=4_000_000_000_000)
    pq.write_table(pa.Table.from_pylist([*events, later], EVENT), run / "preprocess" / "events.parquet")
    queries = [dict.fromkeys(QUERY.names) | {"query_id": str(n), "user_id": user} for n, user in enumerate(people)]
    pq.write_table(pa.Table.from_pylist(queries, QUERY), run / "preprocess" / "queries.parquet")
    flags = pa.table({"record": ["user"] * 3, "id": people, "flag": ["bot"] * 3, "detail": [None] * 3})
    pq.write_table(flags, run / "preprocess" / "flags.parquet")
    aside = dict.fromkeys(QUARANTINE.names, "x") | {"position": 1, "detail": f'{{"user": "{ANN}"}}'}
    pq.write_table(pa.Table.from_pylist([aside], QUARANTINE), run / "preprocess" / "quarantine.parquet")
    ranks = pa.table({"system": ["recommender"] * 3, "user_id": people, "rank": [1, 2, 3]})
    pq.write_table(ranks, run / "evaluate" / "per_user.parquet")


def holding(run: Path, text: str) -> list[str]:
    """Files with these bytes, and Parquet files with this value however it is compressed."""
    found = []
    for file in sorted(path for name in FOLDERS for path in (run / name).rglob("*") if path.is_file()):
        try:
            held = text.encode() in file.read_bytes()
            if file.suffix == ".parquet" and "features" not in file.parts:
                held = held or text in str(pq.read_table(file).to_pylist())
        except FileNotFoundError:  # a new version was just put into its place
            continue
        found += [file.name] if held else []
    return found


def tables(experiment: config.Experiment, text: str) -> list[str]:
    with Database(store_url(experiment)) as database, database._engine.connect() as connection:
        return [
            name
            for name, table in METADATA.tables.items()
            if any(text in str(row) for row in connection.execute(sa.select(table)))
        ]


def test_nothing_is_left_of_an_erased_user(service: tuple[TestClient, config.Experiment]):
    client, experiment = service
    run = experiment.run
    for user in (ANN, BOB):
        live(client, user)
    with Database(store_url(experiment)) as database:
        wait_for(lambda: database.read_impressions().num_rows == 6)
        bobs = sum(row["user_id"] == BOB for row in database.read_impressions().to_pylist())
        wait_for(database.truncate_log)  # so that the id stands in the database's own file
    feedback.run(experiment)
    copies(run)
    assert {"events.parquet", "impressions.parquet", "joined.parquet", "fuserank.db"} <= set(holding(run, ANN))
    assert tables(experiment, ANN) == ["events", "impressions"]
    answer = client.delete(f"/v1/users/{ANN}")
    assert (answer.status_code, answer.json()["events"], answer.json()["impressions"]) == (200, 3, 3)
    assert tables(experiment, ANN) == []
    files = {"events.parquet"}  # of preprocess, with the one event from after the erasure
    deadline = time.monotonic() + 10
    while left := set(holding(run, ANN)) - files:
        assert time.monotonic() < deadline, left
    with Database(store_url(experiment)) as database:
        wait_for(lambda: database.unscrubbed() == [])  # marked once the files are done
        assert database.erased_users().keys() == {digest(ANN)}
        assert sum(row["user_id"] == BOB for row in database.read_impressions().to_pylist()) == bobs == 2
    left = pq.read_table(run / "preprocess" / "events.parquet").to_pylist()
    assert [(row["event_id"], row["user_id"]) for row in left] == [("1", BOB), ("later", ANN)]
    asked = pq.read_table(run / "preprocess" / "queries.parquet")
    assert asked["user_id"].to_pylist() == [None, BOB, None]  # its rows stand beside their features'
    assert pq.read_table(run / "preprocess" / "quarantine.parquet")["reason"].to_pylist() == ["x"]
    for name in ("impressions", "joined", "events"):
        assert BOB in pq.read_table(run / "feedback" / f"{name}.parquet")["user_id"].to_pylist()
    assert client.post("/v1/recommend", json={"user_id": ANN}).json()["source"] == "popularity"
    assert client.post("/v1/recommend", json={"user_id": BOB}).json()["source"] == "recommender"


def test_what_is_from_before_is_refused_and_what_is_later_is_new(service: tuple[TestClient, config.Experiment]):
    client, experiment = service
    live(client, ANN)
    before = int(1000 * time.time())
    assert client.delete(f"/v1/users/{ANN}").status_code == 200
    answer = client.post("/v1/events", json=[event(ANN, timestamp=before), event(BOB, timestamp=before)]).json()
    assert (answer["accepted"], answer["rejected"]) == (1, [{"index": 0, "reason": "its user was erased since"}])
    time.sleep(0.01)
    assert client.post("/v1/events", json=[event(ANN)]).json()["accepted"] == 1
    late = {"request_id": "from a spool", "kind": "search", "user_id": ANN, "timestamp": before}
    with Database(store_url(experiment)) as other:  # another process, which has not seen the erasure itself
        assert other.add_impressions([late]).rejected == [{"index": 0, "reason": "its user was erased since"}]
        assert [row["type"] for row in other.recent_events(ANN, 10)] == ["click"]
    copies(experiment.run)  # as the shop's own files would bring them back
    without_erased(experiment, experiment.run / "preprocess")
    assert set(pq.read_table(experiment.run / "preprocess" / "events.parquet")["event_id"].to_pylist()) == {
        "1",
        "later",
    }


def test_an_event_stored_while_its_user_is_erased_does_not_stay(tmp_path: Path):
    with Database(f"sqlite:///{tmp_path}/race.db") as database:
        now = int(1000 * time.time())

        async def race() -> None:
            adds = [
                asyncio.to_thread(database.add_events, [event(ANN, event_id=f"{n}", timestamp=now)]) for n in range(60)
            ]
            erase = asyncio.to_thread(database.erase_user, ANN)
            await asyncio.gather(*adds[:30], erase, *adds[30:])

        asyncio.run(race())
        assert database.read_events().num_rows == 0


def test_a_user_whose_name_is_a_path(service: tuple[TestClient, config.Experiment]):
    client, _ = service
    client.post("/v1/events", json=[event("a/b c?")])
    assert client.delete("/v1/users/a%2Fb%20c%3F").json()["events"] == 1
    assert client.delete("/v1/users/" + "x" * 257).status_code == 422


def test_what_is_too_old_goes_by_itself(tmp_path: Path):
    with Database(f"sqlite:///{tmp_path}/old.db") as database:
        database.add_events([event(BOB, event_id=str(n)) for n in range(5)])
        database.add_impressions([{"request_id": str(n), "kind": "search"} for n in range(5)])
        with database._engine.begin() as connection:
            for table, key in (("events", "event_id"), ("impressions", "request_id")):
                connection.exec_driver_sql(f"UPDATE {table} SET stored = stored - 86400000 * 31 WHERE {key} < '3'")
        keeper = Housekeeping(database, None, 30, look_seconds=0.05)
        wait_for(lambda: database.read_events().num_rows == 2)
        keeper.stop()
        assert database.read_impressions()["request_id"].to_pylist() == ["3", "4"]
        assert database.read_events()["event_id"].to_pylist() == ["3", "4"]
