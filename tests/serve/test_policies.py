"""Answers that a policy orders, through HTTP with every deployment in this process: propensities, learning, switches.

The policy itself is computed anew here, by NumPy, from what the impressions hold.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.config import Experiment
from fuserank.feedback.joins import join
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.slate_log import read_slates
from fuserank.store.database import Database
from fuserank.store.policies import ALL, Switch
from serve.app import store_url
from serve.policies import POLL_SECONDS, Followed
from serve.routes import create_app
from tests.serve import conftest

SHARE, ALPHA, RIDGE, PRIOR, K = 0.2, 0.4, 2.0, 0.05, 30
HISTORY = [{"type": "click", "product_id": p, "user_id": "ann"} for p in ("p01", "p05", "p13")]


def settings(base: Experiment, folder: Path, **online: Any) -> Experiment:
    """The shop with a database of its own and a policy."""
    more = {"scenarios": ["recommend", "search"], "candidates": K, "prior": PRIOR, **online}
    numbers = {"policy.share": SHARE, "policy.alpha": ALPHA, "policy.ridge": RIDGE, "policy.samples": 64}
    return config.update(base, {"store.url": f"sqlite:///{folder}/policy.db", "policy.online": more, **numbers})


@contextmanager
def served(experiment: Experiment, learning: bool = True) -> Iterator[TestClient]:
    deployments = conftest.deploy(experiment)
    if not learning:
        deployments["feedback"]._learning.stop()
    gateway = conftest.front(experiment, deployments)
    with TestClient(create_app(gateway, 200_000, "test")) as client:
        yield client
    gateway.held.stop()
    deployments["feedback"].__del__()
    deployments["retriever"].held.stop()


def wait_for(what: Callable[[], Any], seconds: float = 5) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def recommend(client: TestClient, limit: int = 5, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/recommend", json={"user_id": "ann", "limit": limit, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def impressions(experiment: Experiment, count: int) -> dict[str, dict[str, Any]]:
    """At least so many, once they are stored."""
    with Database(store_url(experiment)) as database:
        wait_for(lambda: database.read_impressions().num_rows >= count)
        return {row["request_id"]: row for row in database.read_impressions().to_pylist()}


class LinUCB:
    """From the paper, over what impressions hold."""

    def __init__(self, names: list[str]):
        self.gram, self.response = RIDGE * np.eye(len(names)), np.zeros(len(names))
        self.response[names.index("score")] = RIDGE * PRIOR

    def learn(self, features: np.ndarray, reward: float) -> None:
        self.gram += np.outer(features, features)
        self.response += reward * features

    def order(self, values: np.ndarray) -> list[int]:
        inverse = np.linalg.inv(self.gram)
        upper = [x @ inverse @ self.response + ALPHA * math.sqrt(x @ inverse @ x) for x in values]
        return sorted(range(len(upper)), key=lambda row: -upper[row])


def read(row: dict[str, Any]) -> tuple[list[str], np.ndarray, list[int]]:
    told = json.loads(row["features"])
    places = [row["candidate_ids"].index(product) for product in row["product_ids"]]
    return told["names"], np.array(told["values"]), places


def check(row: dict[str, Any], learner: LinUCB, share: float = SHARE) -> bool:
    """The logged propensities against the definition; whether the slate was the policy's own."""
    _, values, places = read(row)
    own, count, size = learner.order(values)[: len(places)], len(values), len(places)
    expected = [share / count + (1 - share) * (place == best) for place, best in zip(places, own, strict=True)]
    assert row["propensities"] == pytest.approx(expected, abs=1e-12)
    slate = share * math.factorial(count - size) / math.factorial(count) + (1 - share) * (places == own)
    assert row["slate_propensity"] == pytest.approx(slate, rel=1e-9)
    return places == own


def test_without_a_policy_the_models_order_is_certain(client: TestClient):
    hits = client.post("/v1/recommend", json={"product_ids": ["p02"], "limit": 3}).json()["hits"]
    assert [(hit["propensity"], hit["policy"]) for hit in hits] == [(1.0, "greedy@0")] * 3


def test_propensities_are_those_of_the_definition(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    with served(experiment, learning=False) as client:
        client.post("/v1/events", json=HISTORY)
        answers = [recommend(client) for _ in range(60)]
        filtered = recommend(client, filter={"brand": "Acme"}, limit=40)
    rows = impressions(experiment, 61)
    own = []
    for answer in answers:
        row = rows[answer["request_id"]]
        names, values, _ = read(row)
        assert values.shape == (K, len(names))
        assert np.abs(values).max() <= 4
        assert [hit["propensity"] for hit in answer["hits"]] == row["propensities"]
        assert {hit["policy"] for hit in answer["hits"]} == {row["policy"]}
        assert row["policy"].startswith("linucb@")
        assert [hit["product_id"] for hit in answer["hits"]] == row["product_ids"]
        own.append(check(row, LinUCB(names)))
    assert 60 * SHARE * 0.3 < own.count(False) < 60 * SHARE * 2, "a share of the slates is random"
    assert answers[0]["stages"].keys() >= {"retrieve", "policy", "render"}
    row = rows[filtered["request_id"]]  # fewer candidates than positions
    assert all(hit["brand"] == "Acme" for hit in filtered["hits"])
    assert len(row["propensities"]) == len(filtered["hits"]) == len(row["candidate_ids"]) < 20
    check(row, LinUCB(read(row)[0]))


def settled(experiment: Experiment, count: int) -> tuple[str, LinearState]:
    """The policy of recommendations and its state once it has learnt from `count` answers and all events."""
    with Database(store_url(experiment)) as database:
        wait_for(lambda: database.read_impressions().num_rows >= count and not database.unlearnt("click", 10))
        (row,) = [row for row in database.policy_states() if row.scenario == "recommend"]
    state = LinearState.from_dict(json.loads(row.state))
    time.sleep(2 * POLL_SECONDS)  # by now every gateway has it
    return f"linucb@{state.version}", state


def click(answer: dict[str, Any], place: int) -> dict[str, Any]:
    hit = answer["hits"][place]
    return {"type": "click", "product_id": hit["product_id"], "request_id": answer["request_id"], "position": place}


def test_rewards_move_the_policy_as_they_should(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    random = np.random.default_rng(2)
    with served(experiment) as client:
        client.post("/v1/events", json=HISTORY)
        answers = [recommend(client) for _ in range(8)]
        settled(experiment, 8)
        clicks = [click(answer, place) for answer in answers for place in range(5) if random.random() < 0.4]
        clicks += clicks[:3]  # clicked again
        clicks.append(clicks[0] | {"product_id": "p99"})  # never shown
        assert client.post("/v1/events", json=clicks).json()["accepted"] == len(clicks)
        version, state = settled(experiment, 8)
        rows = impressions(experiment, 8)
        later = recommend(client)
    row = impressions(experiment, 9)[later["request_id"]]
    assert row["policy"] == version != answers[0]["hits"][0]["policy"]
    learner = LinUCB(read(row)[0])
    rewarded = {(one["request_id"], one["product_id"]) for one in clicks}
    for shown in rows.values():
        _, values, places = read(shown)
        for place, product in zip(places, shown["product_ids"], strict=True):
            learner.learn(values[place], float((shown["request_id"], product) in rewarded))
    np.testing.assert_allclose(state.gram + RIDGE * np.eye(len(state.names)), learner.gram, atol=0.02)
    believed = RIDGE * PRIOR * (np.array(state.names) == "score")
    np.testing.assert_allclose(state.response + believed, learner.response, atol=0.01)
    assert np.abs(state.response).max() > 1
    check(row, learner)


def test_a_restart_keeps_what_was_learnt(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    with served(experiment) as client:
        client.post("/v1/events", json=HISTORY)
        answer = recommend(client)
        client.post("/v1/events", json=[click(answer, 0)])
        version, _ = settled(experiment, 1)
    with served(experiment) as client:
        assert recommend(client)["hits"][0]["policy"] == version
        settled(experiment, 2)  # and it goes on
        assert recommend(client)["hits"][0]["policy"] not in (version, answer["hits"][0]["policy"])


def test_replicas_know_the_same_state(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    with Database(store_url(experiment)) as database, served(experiment) as client:
        others = [Followed(database, experiment.policy) for _ in range(2)]
        client.post("/v1/events", json=HISTORY)
        answers = [recommend(client) for _ in range(5)]
        client.post("/v1/events", json=[click(answer, 1) for answer in answers])
        version, state = settled(experiment, 5)
        assert [other.policy("recommend", state.names).name for other in others] == [version] * 2
        assert recommend(client)["hits"][0]["policy"] == version
        for other in others:
            other.close()


def test_freezing_ends_exploration_within_a_second(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    experiment = config.update(experiment, {"policy.share": 1.0})  # every slate is random
    with Database(store_url(experiment)) as database, served(experiment) as client:
        client.post("/v1/events", json=HISTORY)
        drawn = Counter(tuple(hit["product_id"] for hit in recommend(client)["hits"]) for _ in range(8))
        assert len(drawn) == 8
        settled(experiment, 8)
        database.switch_policy(Switch(ALL, frozen=True))
        time.sleep(1)
        answers = [recommend(client) for _ in range(4)]
        assert [hit["propensity"] for answer in answers for hit in answer["hits"]] == [1.0] * 20
        database.switch_policy(Switch("recommend", frozen=False))
        time.sleep(1)
        assert {hit["propensity"] for hit in recommend(client)["hits"]} == {1 / K}
    rows = impressions(experiment, 13)
    row = rows[answers[0]["request_id"]]
    names, values, places = read(row)
    with Database(store_url(experiment)) as database:
        (stored,) = database.policy_states()
    assert tuple(names) == LinearState.from_dict(json.loads(stored.state)).names
    learner = LinUCB(names)
    for other in rows.values():
        if other["timestamp"] < row["timestamp"]:
            _, theirs, shown = read(other)
            for place in shown:
                learner.learn(theirs[place], 0.0)
    means = values @ np.linalg.solve(learner.gram, learner.response)
    assert means[places].tolist() == pytest.approx(sorted(means, reverse=True)[:5], abs=1e-4)  # no bonus for doubt


def test_another_policy_takes_over_what_was_learnt(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path)
    with Database(store_url(experiment)) as database, served(experiment) as client:
        client.post("/v1/events", json=HISTORY)
        recommend(client)
        version, _ = settled(experiment, 1)
        database.switch_policy(Switch("recommend", kind="thompson"))
        time.sleep(1)
        answer = recommend(client)
        assert answer["hits"][0]["policy"] == version.replace("linucb", "thompson")
    row = impressions(experiment, 2)[answer["request_id"]]
    errors = json.loads(row["features"])["errors"]
    assert len(errors["propensities"]) == 5
    assert all(0 < error < 0.07 for error in errors["propensities"])  # of 64 draws
    assert min(row["propensities"]) >= SHARE / K


def test_pages_of_a_search_hold_every_hit_once(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path, kind="epsilon_greedy")
    body = {"text": "red shoe", "user_id": "ann"}
    with served(experiment) as client:
        client.post("/v1/events", json=HISTORY)
        model = client.post("/v1/search", json=body | {"limit": 20, "sort": [{"relevance": "desc"}]}).json()["hits"]
        sorted_ = client.post("/v1/search", json=body | {"limit": 20, "sort": [{"price": "asc"}]}).json()["hits"]
        pages = [client.post("/v1/search", json=body | {"limit": 5, "offset": o}).json() for o in (0, 5, 10, 15)]
    assert all("propensity" not in hit for hit in sorted_)
    assert len(model) == 20
    for start, page in zip((0, 5, 10, 15), pages, strict=True):
        expected = {hit["product_id"] for hit in model[start : start + 5]}
        assert {hit["product_id"] for hit in page["hits"]} == expected
        allowed = {round(chance, 9) for chance in (SHARE / 5, SHARE / 5 + 1 - SHARE)}
        assert {round(hit["propensity"], 9) for hit in page["hits"]} <= allowed
    row = impressions(experiment, 6)[pages[1]["request_id"]]
    assert (row["kind"], row["policy"].split("@")[0]) == ("search", "epsilon_greedy")
    assert set(row["candidate_ids"]) == {hit["product_id"] for hit in model[5:10]}


def test_strangers_meet_new_products(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path, fresh=10, candidates=20)
    with served(experiment) as client:
        answer = recommend(client, user_id="stranger")
        assert answer["source"] == "popularity"
        time.sleep(0.1)
    row = impressions(experiment, 1)[answer["request_id"]]
    names, values, _ = read(row)
    assert values.shape == (20, len(names))
    assert not values[:, [n for n, name in enumerate(names) if name.startswith(("match", "text_taste"))]].any()


def test_what_is_logged_can_be_judged(experiment: Experiment, tmp_path: Path):
    """`fuserank policy` reads what serving logs."""
    experiment = settings(experiment, tmp_path)
    with served(experiment) as client:
        client.post("/v1/events", json=HISTORY)
        answers = [recommend(client) for _ in range(6)]
        client.post("/v1/events", json=[click(answer, 2) for answer in answers])
        settled(experiment, 6)
    with Database(store_url(experiment)) as database:
        shown = database.read_impressions()
        log = read_slates(shown, join(shown, database.read_events()).rows, "clicked")
    assert log.left_out == {}
    assert log.features.shape[:2] == (6, K)
    np.testing.assert_array_equal(log.rewards, np.eye(5)[[2] * 6])


def test_a_failing_policy_answers_in_the_models_order(experiment: Experiment, tmp_path: Path, monkeypatch: Any):
    experiment = settings(experiment, tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError("no policy today")

    monkeypatch.setattr(Followed, "policy", fail)
    with served(experiment) as client:
        hits = recommend(client)["hits"]
    assert [(hit["propensity"], hit["policy"]) for hit in hits] == [(1.0, "greedy@0")] * 5
