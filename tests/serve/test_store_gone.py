"""The whole gateway while the database is locked: searches go on and are kept, writes are refused, nothing is lost."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from fuserank.store.database import Database
from serve.feedback import Feedback
from serve.gateway import Gateway
from serve.impressions import ImpressionLog
from serve.routes import create_app
from serve.spool import Spool
from tests.serve.conftest import front

SPOOL_BYTES = 50_000


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def gateway(
    experiment: Experiment, deployments: dict[str, Any], store: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gateway]:
    """With a store of its own that waits for a lock no longer than 0.3 s."""
    monkeypatch.setattr("fuserank.store.engine.BUSY_SECONDS", 0.3)
    monkeypatch.setattr("serve.gateway.WAIT_SECONDS", 10)  # a disk that is busy with other tests
    feedback = Feedback(f"sqlite:///{store}")
    made = front(experiment, {**deployments, "feedback": feedback})
    made._impressions = ImpressionLog(feedback.add_impressions, Spool(store.parent / "spool", SPOOL_BYTES), 0.05)
    yield made
    made.held.stop()


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """As another process that does not end its transaction."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def search(client: TestClient, number: int) -> tuple[str, bool]:
    response = client.post("/v1/search", json={"text": f"red shoe {number}", "user_id": "u", "limit": 20})
    assert response.status_code == 200
    answer = response.json()
    assert len(answer["hits"]) == 20
    return answer["request_id"], answer["logged"]


def stored(store: Path) -> list[str]:
    with Database(f"sqlite:///{store}") as database:
        return database.read_impressions()["request_id"].to_pylist()


@pytest.mark.timeout(120)
def test_searches_go_on_until_the_spool_is_full_and_all_that_was_promised_arrives(gateway: Gateway, store: Path):
    with TestClient(create_app(gateway, 200_000, "test")) as client:
        before = search(client, 0)
        with locked(store):
            answers = [search(client, number) for number in range(150)]
            assert gateway._impressions._spool.bytes <= SPOOL_BYTES
            refused = client.post("/v1/events", json=[{"type": "click", "product_id": "p01", "user_id": "u"}])
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert refused.headers["Retry-After"]
        kept = {request_id for request_id, logged in (before, *answers) if logged}
        full = [logged for _, logged in answers]
        assert full == sorted(full, reverse=True), "once it is full it stays full"
        assert 10 < full.count(True) < 140
        assert gateway._impressions.lost == full.count(False)
        end = time.monotonic() + 20
        while gateway._impressions._spool.lines and time.monotonic() < end:
            time.sleep(0.05)
        later = search(client, 151)
        assert later[1]
    found = stored(store)
    assert len(found) == len(set(found))
    assert set(found) == kept | {later[0]}, "each that was promised, and no other"


@pytest.mark.timeout(120)
def test_a_store_that_stays_away_leaves_the_impressions_to_the_next_gateway(gateway: Gateway, store: Path):
    with locked(store):
        with TestClient(create_app(gateway, 200_000, "test")) as client:
            answers = [search(client, number) for number in range(5)]
        assert all(logged for _, logged in answers)
    assert stored(store) == []
    feedback = Feedback(f"sqlite:///{store}")
    gateway._impressions = ImpressionLog(feedback.add_impressions, Spool(store.parent / "spool", SPOOL_BYTES))
    with TestClient(create_app(gateway, 200_000, "test")):
        end = time.monotonic() + 20
        while len(stored(store)) < 5 and time.monotonic() < end:
            time.sleep(0.05)
    assert sorted(stored(store)) == sorted(request_id for request_id, _ in answers)
