"""Recommendations as server-sent events, over a real connection to one gateway in this process."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from fuserank import config
from fuserank.config import Experiment
from fuserank.errors import StoreError
from fuserank.store.database import Database
from serve.app import store_url
from serve.launcher import free_port
from serve.routes import create_app
from serve.streams import Streams
from tests.serve import conftest
from tests.serve.test_policies import wait_for


class Service:
    """A server in a thread, its streams at hand."""

    def __init__(self, experiment: Experiment, **options: Any):
        self.experiment = experiment
        self.database = Database(store_url(experiment))
        self._deployments = conftest.deploy(experiment)
        self._gateway = conftest.front(experiment, self._deployments)
        self.failing = False
        self.streams = Streams(self._gateway.recommend, self._marks, **{"limit": 2, **options})
        app = create_app(self._gateway, 200_000, "test", streams=self.streams)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="warning"))
        self._server.config.timeout_graceful_shutdown = 1
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()))
        self._thread.start()
        wait_for(lambda: self._server.started, 20)
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=20)

    def _marks(self, users: Any) -> Any:
        if self.failing:
            raise StoreError("gone for a moment.")
        return self.database.event_marks(users)

    def close(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join()
        self._gateway.held.stop()
        self._deployments["retriever"].held.stop()
        self._deployments["products"].__del__()
        self._deployments["feedback"].__del__()
        self.database.close()

    @contextmanager
    def listening(self, user: str) -> Iterator["Listener"]:
        with self.http.stream("GET", "/v1/recommend/stream", params={"user_id": user, "limit": 5}) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield Listener(answer.iter_lines())


class Listener:
    """Reads a stream event by event."""

    def __init__(self, lines: Iterator[str]):
        self._lines = lines

    def next(self) -> dict[str, Any]:
        """The next list, its id as `id`."""
        told: dict[str, str] = {}
        for line in self._lines:
            if not line and "data" in told:
                assert told["event"] == "recommendations"
                return {"id": told["id"], **json.loads(told["data"])}
            name, _, value = line.partition(": ")
            if name:
                told[name] = value
        raise AssertionError("the stream ended")

    def comment(self) -> str:
        """The next line that only keeps the connection open."""
        return next(line for line in self._lines if line.startswith(":"))


@pytest.fixture
def service(experiment: Experiment, tmp_path: Path) -> Iterator[Service]:
    made = Service(config.update(experiment, {"store.url": f"sqlite:///{tmp_path}/streams.db"}), heartbeat_seconds=0.5)
    yield made
    made.close()


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["product_id"] for hit in answer["hits"]]


def test_an_event_brings_a_new_list_within_a_second(service: Service):
    with service.listening("ann") as listener:
        first = listener.next()
        assert first["source"] == "popularity"
        for product, seconds in (("p07", 1.0), ("p22", 1.0)):
            accepted = service.http.post(
                "/v1/events", json=[{"type": "click", "product_id": product, "user_id": "ann"}]
            )
            assert accepted.json()["accepted"] == 1
            begin = time.monotonic()
            later = listener.next()
            assert time.monotonic() - begin < seconds
            assert ids(later) != ids(first)
            asked = service.http.post("/v1/recommend", json={"user_id": "ann", "limit": 5}).json()
            assert (ids(later), later["source"]) == (ids(asked), "recommender")
            assert later["id"] == later["request_id"] != first["request_id"]
            assert all(hit["policy"] == "greedy@0" for hit in later["hits"])
            first = later
    wait_for(lambda: service.database.read_impressions().num_rows == 5)  # each list that was sent or asked for
    stored = set(service.database.read_impressions()["request_id"].to_pylist())
    assert {first["request_id"], later["request_id"]} <= stored


def test_what_changes_nothing_sends_nothing_but_heartbeats(service: Service):
    with service.listening("bob") as listener:
        listener.next()
        for number in range(3):  # of another user, of no known product, of another process
            service.http.post("/v1/events", json=[{"type": "view", "product_id": "p01", "user_id": "eve"}])
            service.http.post("/v1/events", json=[{"type": "view", "product_id": f"gone{number}", "user_id": "bob"}])
            assert listener.comment().startswith(": ")
        service.database.add_events([{"type": "like", "product_id": "p30", "user_id": "bob"}])
        assert listener.next()["source"] == "recommender"
    wait_for(lambda: service.database.read_impressions().num_rows == 2)
    time.sleep(0.5)
    assert service.database.read_impressions().num_rows == 2


def test_streams_are_bounded_and_end_with_their_listeners(service: Service):
    with service.listening("ann") as one, service.listening("bob") as other:
        one.next()
        other.next()
        refused = service.http.get("/v1/recommend/stream", params={"user_id": "eve"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        assert refused.headers["retry-after"] == "5"
        assert len(service.streams) == 2
    wait_for(lambda: len(service.streams) == 0, 5)
    with service.listening("eve") as listener:
        assert len(ids(listener.next())) == 5
    for bad in ({}, {"user_id": ""}, {"user_id": "ann", "limit": 0}, {"user_id": "ann", "limit": 1000}):
        assert service.http.get("/v1/recommend/stream", params=bad).status_code == 422
    assert len(service.streams) <= 1


def test_a_store_that_is_gone_for_a_while_only_delays(service: Service):
    with service.listening("ann") as listener:
        listener.next()
        service.failing = True
        service.database.add_events([{"type": "click", "product_id": "p12", "user_id": "ann"}])
        assert listener.comment().startswith(": ")
        service.failing = False
        assert listener.next()["source"] == "recommender"
    service.failing = True
    assert service.http.get("/v1/recommend/stream", params={"user_id": "ann"}).status_code == 503
    wait_for(lambda: len(service.streams) == 0)
