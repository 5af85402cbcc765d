"""Administration of policies through HTTP: what was learnt, switches, canaries begun and ended by hand."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from fuserank import config
from fuserank.config import Experiment
from fuserank.store.database import Database
from fuserank.store.keys import make as make_key
from serve.app import store_url
from serve.keyring import Keyring
from serve.policies import POLL_SECONDS
from serve.routes import create_app
from tests.serve import conftest
from tests.serve.test_canaries import WATCH, visit
from tests.serve.test_policies import recommend, settings, settled, wait_for


@contextmanager
def administered(experiment: Experiment) -> Iterator[TestClient]:
    """A service asked with an administrator's key."""
    key, stored = make_key("root", ["admin", "search"])
    deployments = conftest.deploy(experiment)
    gateway = conftest.front(experiment, deployments)
    with Database(store_url(experiment)) as database:
        database.add_key(stored)
        app = create_app(gateway, 200_000, "test", config.Guard(administration=True), Keyring(database, False))
        with TestClient(app, headers={"X-API-Key": key}) as client:
            yield client
    gateway.held.stop()
    deployments["feedback"].__del__()
    deployments["retriever"].held.stop()


def test_administration_shows_and_switches(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    with administered(experiment) as client:
        empty = {name: [] for name in ("learnt", "switches", "canaries", "decisions")}
        assert client.get("/v1/admin/policy").json() == empty
        recommend(client)
        version, state = settled(experiment, 1)
        body = {"scenario": "recommend", "frozen": True}
        shown = client.post("/v1/admin/policy", json=body).json()
        assert shown["switches"] == [{"scenario": "recommend", "kind": None, "frozen": True}]
        (learnt,) = shown["learnt"]
        assert (f"linucb@{learnt['version']}", learnt["shown"]) == (version, 5)
        assert learnt["features"] == list(state.names)
        time.sleep(2 * POLL_SECONDS)
        assert [hit["propensity"] for hit in recommend(client)["hits"]] == [1.0] * 5
        for bad in ({}, {"frozen": True, "scenario": "similar"}, {"kind": "greedy"}):
            assert client.post("/v1/admin/policy", json=bad).status_code == 422
        assert client.get("/v1/admin/policy", headers={"X-API-Key": ""}).status_code == 401


def test_administration_begins_and_ends_a_canary(experiment: Experiment, tmp_path: Path):
    experiment = config.update(settings(experiment, tmp_path), WATCH)
    with administered(experiment) as client:

        def post(**body: Any) -> Any:
            return client.post("/v1/admin/policy", json=body)

        (canary,) = post(kind="thompson", canary=0.5).json()["canaries"]
        assert (canary["scenario"], canary["kind"], canary["share"]) == ("*", "thompson", 0.5)
        time.sleep(2 * POLL_SECONDS)
        sides = [visit(client, f"v{n}", set()) for n in range(20)]
        counts = [sides.count("thompson"), sides.count("linucb")]
        assert min(counts) > 0

        def standing() -> Any:
            told = client.get("/v1/admin/policy").json()["canaries"][0]["standing"]
            seen = told and [told["answers"], told["incumbent_answers"]]
            return told if seen == counts else None

        told = wait_for(standing)
        assert (told["incumbent"], told["look"]) == ("linucb", None)
        shown = post(canary=0).json()
        assert shown["canaries"] == []
        (decision,) = shown["decisions"]
        assert (decision["outcome"], decision["candidate"], decision["incumbent"]) == (
            "ended by hand", "thompson", "linucb",
        )  # fmt: skip
        assert decision["evidence"]["answers"] == counts[0]
        time.sleep(2 * POLL_SECONDS)
        assert {visit(client, f"v{n}", set()) for n in range(20)} == {"linucb"}
        for bad in ({"canary": 0.5}, {"kind": "thompson", "canary": 1}, {"canary": -0.1, "kind": "thompson"}):
            assert client.post("/v1/admin/policy", json=bad).status_code == 422
