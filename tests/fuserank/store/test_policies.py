"""What live policies learn, on both kinds of database: every answer and reward once, in whatever order they come."""

import itertools
import json
from typing import Any

import numpy as np
import pytest

from fuserank.errors import StoreError
from fuserank.feedback.learner import Learner
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.slate_log import encode_features
from fuserank.store.database import Database
from fuserank.store.policies import ALL, Switch

NAMES = ("bias", "one", "two")
RANDOM = np.random.default_rng(5)


def answers(count: int, kind: str = "recommend") -> list[dict[str, Any]]:
    found = []
    for number in range(count):
        features = np.round(RANDOM.normal(size=(6, 3)), 4)
        shown = RANDOM.permutation(6)[:3].tolist()
        found.append(
            {
                "request_id": f"{kind}{number}",
                "kind": kind,
                "candidate_ids": [f"p{row}" for row in range(6)],
                "product_ids": [f"p{row}" for row in shown],
                "propensities": [0.5] * 3,
                "features": encode_features(NAMES, features),
            }
        )
    return found


def clicks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some clicks, some of them twice or on what was not shown, and what is no reward."""
    events = []
    for answer in found:
        for product in answer["candidate_ids"]:
            for _ in range(int(RANDOM.integers(0, 3))):
                events.append({"type": "click", "product_id": product, "request_id": answer["request_id"]})
        events.append({"type": "view", "product_id": "p1", "request_id": answer["request_id"]})
    return [
        *events,
        {"type": "click", "product_id": "p1", "request_id": "nobody's"},
        {"type": "click", "product_id": "p1"},
    ]


def expected(found: list[dict[str, Any]], events: list[dict[str, Any]], looked_at: tuple[float, ...]) -> LinearState:
    """The same, all at once, from the definition."""
    clicked = {(event.get("request_id"), event["product_id"]) for event in events if event["type"] == "click"}
    state = LinearState(NAMES)
    for answer in found:
        values = np.array(json.loads(answer["features"])["values"])
        rows = [int(product[1:]) for product in answer["product_ids"]]
        rewards = [float((answer["request_id"], product) in clicked) for product in answer["product_ids"]]
        state.observe(values[rows], np.array(rewards), np.array(looked_at))
    return state


def learnt(database: Database) -> dict[str, str]:
    return {row.scenario: LinearState.from_dict(json.loads(row.state)).version for row in database.policy_states()}


def test_any_order_of_arrival_teaches_the_same(any_database: Database):
    found, looked_at = answers(12), (1.0, 0.8, 0.5)
    events = clicks(found)
    arrivals = [("answer", answer) for answer in found] + [("event", event) for event in events]
    learner = Learner(any_database, "clicked", looked_at)
    for number, place in enumerate(RANDOM.permutation(len(arrivals))):
        what, row = arrivals[place]
        (any_database.add_impressions if what == "answer" else any_database.add_events)([dict(row)])
        if number % 5 == 0:
            learner.learn(limit=2)
        if number == 20:
            learner = Learner(any_database, "clicked", looked_at)  # as after a restart
    while learner.learn():
        continue
    assert learnt(any_database) == {"recommend": expected(found, events, looked_at).version}
    assert learner.learn() == 0
    assert not any_database.unlearnt("click", 10)


def test_scenarios_and_features_are_apart(any_database: Database):
    one, other = answers(3), answers(2, "search")
    fewer = [
        answer | {"request_id": "x", "features": encode_features(("bias",), np.ones((6, 1)))} for answer in one[:1]
    ]
    broken = [one[0] | {"request_id": "y", "features": "{}"}, one[0] | {"request_id": "z", "features": None}]
    any_database.add_impressions([*one, *other, *fewer, *broken])
    learner = Learner(any_database, "purchased")
    assert learner.learn() == 7  # what was answered without a policy is not looked at
    heads, _ = any_database.policy_heads()
    assert heads == {
        ("recommend", LinearState(NAMES).key): 1, ("recommend", LinearState(["bias"]).key): 1,
        ("search", LinearState(NAMES).key): 1,
    }  # fmt: skip
    bought = {"type": "purchase", "product_id": one[0]["product_ids"][0], "request_id": one[0]["request_id"]}
    any_database.add_events([bought, bought | {"type": "click"}])
    learner.learn()
    state = next(
        LinearState.from_dict(json.loads(row.state)) for row in any_database.policy_states() if row.revision == 2
    )
    values = np.array(json.loads(one[0]["features"])["values"])
    np.testing.assert_allclose(state.response, values[int(one[0]["product_ids"][0][1:])], atol=2**-12)


def test_of_two_learners_one_begins_anew(any_database: Database, any_url: str):
    found = answers(6)
    events = clicks(found)
    with Database(any_url) as other:
        first, second = Learner(any_database, "clicked"), Learner(other, "clicked")
        any_database.add_impressions(found[:3])
        assert first.learn() == 3
        any_database.add_impressions(found[3:])
        waiting = other.unlearnt("click", 10)
        second._states = None
        stale = Learner(other, "clicked")
        stale._known()
        first.learn()
        with pytest.raises(StoreError, match="at the same time"):
            other.write_policies(other.policy_states(), waiting)
        any_database.add_events(events)
        with pytest.raises(StoreError, match="at the same time"):
            stale.learn()
        assert stale.learn() > 0  # it has read the newer state
        for one in itertools.cycle((first, second)):
            try:
                if one.learn() == 0:
                    break
            except StoreError:
                continue
    assert learnt(any_database) == {"recommend": expected(found, events, (1.0, 1.0, 1.0)).version}


def test_switches_keep_what_they_do_not_set(any_database: Database):
    assert any_database.policy_heads()[1] == {}
    any_database.switch_policy(Switch(ALL, frozen=True))
    any_database.switch_policy(Switch("search", kind="thompson"))
    any_database.switch_policy(Switch("search", frozen=False))
    assert any_database.policy_heads()[1] == {
        ALL: Switch(ALL, None, True),
        "search": Switch("search", "thompson", False),
    }
