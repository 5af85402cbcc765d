"""Canaries of policies and rollbacks of generations, through HTTP with every deployment in this process: visitors click
what they like, and the service finds out by itself which policy or generation shows them less of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.config import Experiment
from fuserank.store.canaries import Canary
from fuserank.store.database import Database
from fuserank.store.policies import ALL
from serve.app import index_folder, store_url
from serve.generations import adopt, ask_for
from serve.policies import POLL_SECONDS, Followed, in_canary
from serve.routes import create_app
from tests.serve import conftest
from tests.serve import shop as tiny_shop
from tests.serve.test_policies import SHARE, K, LinUCB, check, impressions, read, served, settings, wait_for

WATCH = {
    "policy.watch_seconds": 0.1, "policy.settle_seconds": 2.0, "policy.effective": 100.0, "policy.share": 0.0,
    "policy.noise": 50.0,  # Thompson's draws are so wild that its slates are as good as random
    "policy.alpha": 0.0,
}  # fmt: skip
LOOKED_AT = {"product_ids": ["p01", "p05", "p13"], "limit": 5}


def visit(client: TestClient, visitor: str, liked: set[str]) -> str:
    """A visitor gets recommendations and clicks what they like of them; the policy that answered."""
    answer = client.post("/v1/recommend", json=LOOKED_AT | {"session_id": visitor}).json()
    clicks = [
        {"type": "click", "product_id": hit["product_id"], "request_id": answer["request_id"]}
        for hit in answer["hits"]
        if hit["product_id"] in liked
    ]
    if clicks:
        assert client.post("/v1/events", json=clicks).json()["accepted"] == len(clicks)
    return answer["hits"][0]["policy"].partition("@")[0]


def decided(database: Database) -> Any:
    return wait_for(lambda: next(iter(database.decisions()), None), 20)


@pytest.mark.parametrize(("incumbent", "canary"), [("linucb", "thompson"), ("thompson", "linucb")])
def test_the_better_policy_stays(experiment: Experiment, tmp_path: Path, incumbent: str, canary: str, client: Any):
    """The shop's visitors like what the model finds best, which LinUCB begins with and wild draws do not show."""
    best = client.post("/v1/recommend", json=LOOKED_AT).json()["hits"]
    liked = {hit["product_id"] for hit in best}
    experiment = config.update(settings(experiment, tmp_path, kind=incumbent), WATCH)
    with Database(store_url(experiment)) as database, served(experiment) as http:
        database.begin_canary(ALL, canary, 0.8)
        time.sleep(2 * POLL_SECONDS)
        running = database.policy_heads()[1][ALL].canary
        assert running is not None
        answered: dict[str, str] = {}
        while list(answered.values()).count(canary) < 100:  # the first look, which decides
            name = f"v{len(answered)}"
            answered[name] = visit(http, name, liked)
        assert answered == {name: canary if in_canary(running, name) else incumbent for name in answered}
        decision = decided(database)
        time.sleep(2 * POLL_SECONDS)
        after = {visit(http, f"v{n}", liked) for n in range(20)}
    good = canary == "linucb"
    assert (decision.outcome, decision.candidate, decision.incumbent) == (
        "promoted" if good else "rolled back", canary, incumbent,
    )  # fmt: skip
    assert after == {"linucb"}
    look = decision.evidence["look"]
    assert abs(look["difference"]) > 0.4
    assert look["answers"] == 100


def test_a_hash_divides_visitors(experiment: Experiment, tmp_path: Path):
    names = [f"visitor {n}" for n in range(20_000)]
    for share in (0.02, 0.3, 0.9):
        first, second = Canary(ALL, "thompson", share, 1), Canary(ALL, "thompson", share, 2)
        inside = np.array([in_canary(first, name) for name in names])
        assert abs(inside.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(names))
        assert [in_canary(first, name) for name in names[:100]] == inside[:100].tolist()
        other = np.array([in_canary(second, name) for name in names])
        assert abs((inside & other).mean() - share**2) < 0.02  # each canary has visitors of its own
        assert not any(in_canary(Canary(ALL, "thompson", share / 2, 1), n) for n in np.array(names)[~inside])
    experiment = settings(experiment, tmp_path)
    with Database(store_url(experiment)) as database:
        gateways = [Followed(database, experiment.policy) for _ in range(2)]
        database.begin_canary("recommend", "thompson", 0.5)
        time.sleep(2 * POLL_SECONDS)
        kinds = [[gateway.kind("recommend", name) for name in names[:200]] for gateway in gateways]
        assert kinds[0] == kinds[1]
        assert {gateway.kind("search", name) for gateway in gateways for name in names[:50]} == {"linucb"}
        for gateway in gateways:
            gateway.close()
    assert 70 < kinds[0].count("thompson") < 130


def test_propensities_are_those_of_the_side(experiment: Experiment, tmp_path: Path):
    """A user stays on one side, and the chances are those of the policy that answered."""
    experiment = settings(experiment, tmp_path)
    with Database(store_url(experiment)) as database, served(experiment, learning=False) as client:
        database.begin_canary("recommend", "epsilon_greedy", 0.5)
        time.sleep(2 * POLL_SECONDS)
        running = database.policy_heads()[1]["recommend"].canary
        assert running is not None
        sides = {}
        for n in range(30):
            body = LOOKED_AT | {"user_id": f"user {n % 10}", "session_id": f"session {n}"}  # a session each time
            answer = client.post("/v1/recommend", json=body).json()
            kind = answer["hits"][0]["policy"].partition("@")[0]
            assert sides.setdefault(n % 10, kind) == kind
            assert kind == ("epsilon_greedy" if in_canary(running, f"user {n % 10}") else "linucb")
        nobody = [client.post("/v1/recommend", json=LOOKED_AT).json() for _ in range(12)]
        rows = impressions(experiment, 42)
    assert {hit["policy"] for one in nobody for hit in one["hits"]} == {row["policy"] for row in rows.values()}
    assert len({row["policy"] for row in rows.values()}) == 2  # who has no id is drawn for each answer
    own = {"linucb": 0, "epsilon_greedy": 0}
    for row in rows.values():
        names, values, places = read(row)
        kind = row["policy"].partition("@")[0]
        if kind == "linucb":
            own[kind] += check(row, LinUCB(names))
            continue
        best = np.argsort(-values[:, names.index("score")], kind="stable")[:5].tolist()  # all that it believes so far
        expected = [SHARE / K + (1 - SHARE) * (place == top) for place, top in zip(places, best, strict=True)]
        assert row["propensities"] == pytest.approx(expected, abs=1e-12)
        own[kind] += places == best
    assert min(own.values()) > 3


@contextmanager
def following(experiment: Experiment) -> Iterator[TestClient]:
    """A service that follows the database's generations."""
    deployments = conftest.deploy(experiment)
    gateway = conftest.front(experiment, deployments, follow=True)
    with TestClient(create_app(gateway, 200_000, "test")) as client:
        yield client
    gateway.held.stop()
    deployments["feedback"].__del__()
    deployments["products"].__del__()
    deployments["retriever"].held.stop()


def test_a_bad_generation_is_rolled_back(tmp_path: Path):
    """Its products have ids that no visitor of this shop has ever clicked."""
    watched = {"policy.rollback": True, "policy.watch_seconds": 0.1, "policy.settle_seconds": 2.0}
    experiment = config.update(tiny_shop.build_run(tmp_path), watched)
    new = tiny_shop.add_generation(experiment, "x")
    index = index_folder(experiment)
    with Database(store_url(experiment)) as database:
        old = adopt(database, index, newest=False).name

        def answers(identity: str) -> bool:
            body = client.post("/v1/recommend", json={"limit": 1}).json()
            return body.get("generation") == identity

        with following(experiment) as client:
            liked = {hit["product_id"] for hit in client.post("/v1/recommend", json=LOOKED_AT).json()["hits"][:3]}
            for n in range(110):
                visit(client, f"old{n}", liked)
            ask_for(database, index, new)
            wait_for(lambda: answers(new), 20)
            for n in range(110):
                visit(client, f"new{n}", liked)
            decision = decided(database)
            wait_for(lambda: answers(old), 20)
        states = {row.id: row.state for row in database.generations()}
    assert (decision.subject, decision.candidate, decision.incumbent, decision.outcome) == (
        "generation", new, old, "rolled back",
    )  # fmt: skip
    assert decision.evidence["kind"] == "recommend"
    look = decision.evidence["look"]
    assert look["incumbent_mean"] > 0.2
    assert look["mean"] == 0
    assert look["high"] < 0
    assert states == {old: "active", new: "retired"}
