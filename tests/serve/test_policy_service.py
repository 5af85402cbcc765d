"""A policy through Ray Serve and HTTP: learns within seconds, is frozen within one, is there again after a restart."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from fuserank import config
from fuserank.store.database import Database
from fuserank.store.policies import ALL, Switch
from serve.app import store_url
from tests.serve import shop
from tests.serve.test_live_service import service, wait_for


def recommend(http: httpx.Client, limit: int = 3) -> list[dict[str, Any]]:
    answer = http.post("/v1/recommend", json={"user_id": "ann", "limit": limit})
    assert answer.status_code == 200, answer.text
    return [hit | {"request_id": answer.json()["request_id"]} for hit in answer.json()["hits"]]


@pytest.mark.timeout(280)
def test_a_policy_learns_is_frozen_and_survives(tmp_path: Path):
    file = tmp_path / "tiny.yaml"
    online = {"policy.online": {"candidates": 12}, "policy.share": 0.9}
    experiment = config.update(shop.build_run(tmp_path), online)
    config.dump(experiment, file)

    def learnt() -> str:
        with Database(store_url(experiment)) as database:
            assert not database.unlearnt("click", 10)
            (version,) = {row.state.rpartition('"version":"')[2][:12] for row in database.policy_states()}
        return f"linucb@{version}"

    with service(file, tmp_path / "first") as (http, _):
        event = {"type": "click", "product_id": "p02", "user_id": "ann"}
        assert http.post("/v1/events", json=[event]).json()["accepted"] == 1
        first = [hit for _ in range(6) for hit in recommend(http)]
        assert {hit["policy"].partition("@")[0] for hit in first} == {"linucb"}
        assert {round(hit["propensity"], 9) for hit in first} <= {round(0.9 / 12, 9), round(0.9 / 12 + 0.1, 9)}
        clicks = [{"type": "click", **{name: hit[name] for name in ("product_id", "request_id")}} for hit in first[::3]]
        sent = time.monotonic()
        assert http.post("/v1/events", json=clicks).json()["accepted"] == len(clicks)
        wait_for(lambda: rewards(experiment) == len(clicks), 5)
        assert time.monotonic() - sent < 3
        listen(http)
        with Database(store_url(experiment)) as database:
            database.switch_policy(Switch(ALL, frozen=True))
        time.sleep(1)
        assert [hit["propensity"] for _ in range(3) for hit in recommend(http)] == [1.0] * 9
        time.sleep(1.5)
        version = learnt()
    with service(file, tmp_path / "second") as (http, _):
        assert {hit["policy"] for hit in recommend(http)} == {version}


def listen(http: httpx.Client) -> None:
    """A stream through Ray's proxy: a list at once, a new one within a second of an event, and an end."""
    with http.stream("GET", "/v1/recommend/stream", params={"user_id": "eve", "limit": 4}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        assert json.loads(next(lines)[6:])["source"] == "popularity"
        event = {"type": "click", "product_id": "p05", "user_id": "eve"}
        assert http.post("/v1/events", json=[event]).json()["accepted"] == 1
        begin = time.monotonic()
        assert json.loads(next(lines)[6:])["source"] == "recommender"
        assert time.monotonic() - begin < 1


def rewards(experiment: config.Experiment) -> int:
    """Rewards that the store's states have learnt from."""
    with Database(store_url(experiment)) as database:
        states = [json.loads(row.state) for row in database.policy_states()]
    return sum(state["squares"] for state in states) // 2**24  # a reward of 1 is 2^12 grid units
