"""Canaries, decisions and what answers earned, on both kinds of database: whoever decides first decides."""

import time
from typing import Any

import pytest

from fuserank.store import canaries
from fuserank.store.database import Database
from fuserank.store.decisions import Decision
from fuserank.store.outcomes import Asked
from fuserank.store.policies import ALL, Switch, kinds


def running(database: Database, scenario: str = ALL) -> canaries.Canary:
    canary = database.policy_heads()[1][scenario].canary
    assert canary is not None
    return canary


def test_a_canary_is_ended_once(any_database: Database, any_url: str):
    any_database.switch_policy(Switch(ALL, frozen=True))
    any_database.begin_canary(ALL, "thompson", 0.2)
    canary = running(any_database)
    assert (canary.kind, canary.share) == ("thompson", 0.2)
    assert abs(time.time() * 1000 - canary.since) < 60_000
    any_database.begin_canary(ALL, "thompson", 0.2)
    assert running(any_database) == canary  # the same goes on
    any_database.note_canary(canary, {"answers": 5, "incumbent": "linucb"})
    assert any_database.canaries_seen() == {ALL: {"answers": 5, "incumbent": "linucb"}}
    evidence = {"look": {"low": 0.01, "high": None}}
    with Database(any_url) as other:
        assert other.end_canary(canary, canary.decision("promoted", "it earns more", "linucb", evidence))
        assert not any_database.end_canary(canary, canary.decision("rolled back", "it earns less", "linucb"))
        other.note_canary(canary, {"answers": 6})
    assert any_database.policy_heads()[1] == {ALL: Switch(ALL, "thompson", True)}
    assert any_database.canaries_seen() == {}
    (decision,) = any_database.decisions()
    assert (decision.subject, decision.scenario, decision.candidate, decision.incumbent) == (
        "policy", ALL, "thompson", "linucb",
    )  # fmt: skip
    assert (decision.outcome, decision.why, decision.evidence) == ("promoted", "it earns more", evidence)
    assert decision.at >= canary.since


def test_a_canary_that_fails_leaves_the_incumbent(any_database: Database):
    any_database.switch_policy(Switch("search", kind="linucb"))
    any_database.begin_canary("search", "thompson", 0.5)
    canary = running(any_database, "search")
    assert any_database.end_canary(canary, canary.decision("rolled back", "it earns less"))
    assert any_database.policy_heads()[1] == {"search": Switch("search", "linucb")}


def test_what_is_chosen_by_hand_ends_a_canary(any_database: Database):
    any_database.begin_canary("recommend", "thompson", 0.2)
    any_database.note_canary(running(any_database, "recommend"), {"incumbent": "linucb"})
    any_database.begin_canary("recommend", "epsilon_greedy", 0.2)
    any_database.begin_canary("search", "thompson", 0.2)
    any_database.switch_policy(Switch("recommend", frozen=True))
    assert running(any_database, "recommend").kind == "epsilon_greedy"  # a freeze is no choice
    any_database.switch_policy(Switch("recommend", kind="linucb"))
    assert any_database.end_canaries(None, "asked for") == 1
    assert any_database.end_canaries("search", "asked for") == 0
    told = [(d.scenario, d.candidate, d.incumbent, d.outcome, d.why) for d in any_database.decisions()]
    assert told == [
        ("recommend", "thompson", "linucb", "ended by hand", "a canary of epsilon_greedy began"),
        ("recommend", "epsilon_greedy", None, "ended by hand", "linucb was chosen"),
        ("search", "thompson", None, "ended by hand", "asked for"),
    ]
    assert any_database.policy_heads()[1]["search"] == Switch("search")


def test_a_scenarios_own_goes_before_that_of_all():
    everywhere = canaries.Canary(ALL, "thompson", 0.1, 1)
    here = canaries.Canary("search", "epsilon_greedy", 0.1, 2)
    assert kinds({}, "search", "linucb") == ("linucb", None)
    assert kinds({ALL: Switch(ALL, canary=everywhere)}, "search", "linucb") == ("linucb", everywhere)
    assert kinds({ALL: Switch(ALL, "thompson", canary=everywhere)}, "search", "linucb") == ("thompson", None)
    switches = {ALL: Switch(ALL, "thompson"), "search": Switch("search", canary=here)}
    assert kinds(switches, "search", "linucb") == ("thompson", here)
    assert kinds(switches, "recommend", "linucb") == ("thompson", None)
    switches = {ALL: Switch(ALL, canary=everywhere), "search": Switch("search", "linucb")}
    assert kinds(switches, "search", "epsilon_greedy") == ("linucb", None)
    switches = {ALL: Switch(ALL, canary=everywhere), "search": Switch("search", frozen=True)}
    assert kinds(switches, "search", "linucb") == ("linucb", everywhere)


def test_what_answers_earned(any_database: Database, monkeypatch: pytest.MonkeyPatch):
    begin, clock = 1_790_000_000_000, [0]
    monkeypatch.setattr(time, "time_ns", lambda: (begin + clock[0]) * 1_000_000)

    def shown(request: str, products: str, **more: Any) -> None:
        row = {"request_id": request, "kind": "recommend", "policy": "linucb@abc", "product_ids": list(products)}
        assert any_database.add_impressions([row | {"timestamp": begin + clock[0]} | more]).accepted == 1

    def clicked(request: str, *products: str, kind: str = "click") -> None:
        rows = [{"type": kind, "product_id": product, "request_id": request} for product in products]
        assert any_database.add_events(rows).accepted == len(rows)

    shown("r1", "abcd", user_id="ann", session_id="s1", generation="g1")
    clicked("r1", "a", "a", "b", "z")  # twice, and what was not shown
    clicked("r1", "c", kind="purchase")
    clock[0] = 100
    shown("r2", "ab", session_id="s1", policy="thompson@abc", generation="g2")
    shown("r3", "", generation="g2")
    shown("r4", "a", kind="search", policy=None)
    clicked("r2", "a")
    clock[0] = 200
    shown("r5", "a", timestamp=begin - 1)  # from before, stored late
    clicked("r1", "d")  # as long after the answer as counts
    clicked("r2", "b")
    clock[0] = 201
    clicked("r1", "c")
    asked = Asked("click", 200, ("recommend",), begin, begin + 199)
    found = any_database.outcomes_after(asked, (0, ""), 10)
    assert [(o.request_id, o.policy, o.visitor, o.value) for o in found] == [
        ("r1", "linucb", "user ann", 0.75), ("r2", "thompson", "session s1", 1.0), ("r3", "linucb", "r3", 0.0),
    ]  # fmt: skip
    assert any_database.outcomes_after(asked, (found[0].stored, "r1"), 1) == found[1:2]
    assert any_database.latest_outcomes(asked, 2) == found[:0:-1]
    searches = Asked("click", 0, ("search",), 0, begin + 500)
    assert [o.request_id for o in any_database.latest_outcomes(searches, 9)] == ["r4"]
    kinds_of = ("thompson", "epsilon_greedy")
    two = Asked("click", 0, ("recommend",), 0, begin + 500, generation="g2", policies=kinds_of)
    assert [(o.request_id, o.value) for o in any_database.outcomes_after(two, (0, ""), 9)] == [("r2", 0.5)]


def test_a_generation_is_rolled_back_once(any_database: Database):
    for name in ("g1", "g2", "g3"):
        any_database.add_generation(name, f"/{name}", 0, "ready")
    any_database.activate_generation("g1")
    any_database.activate_generation("g2")

    def decision(candidate: str, identity: str = "generation g2") -> Decision:
        return Decision(identity, "generation", candidate, "g1", "rolled back", "it earns less")

    def states() -> list[str]:
        return [row.state for row in any_database.generations()]

    assert not any_database.roll_back_generation(decision("g1"))  # it is not what answers
    any_database.warm_generation("g3")
    assert not any_database.roll_back_generation(decision("g2"))  # somebody has asked for another one
    assert any_database.decisions() == []
    any_database.refuse_generation("g3", "no")
    assert any_database.roll_back_generation(decision("g2"))
    assert states() == ["warming", "active", "ready"]
    any_database.activate_generation("g1")
    any_database.activate_generation("g2")
    assert not any_database.roll_back_generation(decision("g2"))
    assert states() == ["retired", "active", "ready"]
    assert any_database.add_decision(decision("g3", "generation g3"))
    assert not any_database.add_decision(decision("g3", "generation g3"))
    assert [one.id for one in any_database.decisions()] == ["generation g2", "generation g3"]
