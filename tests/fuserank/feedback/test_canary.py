"""Judges over a store: what they promote, roll back or leave, once, whoever looks and however often."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fuserank.config import Policy
from fuserank.errors import StoreError
from fuserank.feedback.canary import CanaryJudge
from fuserank.feedback.generations import GenerationJudge
from fuserank.store.database import Database
from fuserank.store.decisions import Decision
from fuserank.store.policies import ALL, Switch

RANDOM = np.random.default_rng(3)
SETTINGS = {"effective": 150, "canary": 0.5, "canary_answers": 400, "watch_answers": 400, "settle_seconds": 0.0}


def settings(**more: object) -> Policy:
    return Policy.model_validate({**SETTINGS, "online": {"scenarios": ["recommend", "search"]}, **more})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


def answer(database: Database, count: int, rate: float, monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    """Answers of five products to as many visitors, and the clicks they got, at that moment."""
    start = database.read_impressions().num_rows
    usual = {"kind": "recommend", "product_ids": list("abcde")}
    rows = [usual | {"request_id": f"r{n}", "session_id": f"s{n}"} | more for n in range(start, start + count)]
    events = [
        {"type": "click", "product_id": product, "request_id": row["request_id"]}
        for row in rows
        for product in "abcde"
        if RANDOM.random() < rate
    ]
    with monkeypatch.context() as patch:  # settle_seconds is 0: what is clicked in that very millisecond counts
        now = time.time_ns()
        patch.setattr(time, "time_ns", lambda: now)
        assert database.add_impressions(rows).accepted == count
        if events:
            assert database.add_events(events).accepted == len(events)
    time.sleep(0.002)


@pytest.fixture
def sides(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Answers of linucb and of thompson."""

    def both(count: int, linucb: float, thompson: float, **more: object) -> None:
        for name, rate in (("linucb", linucb), ("thompson", thompson)):
            answer(database, count, rate, monkeypatch, policy=f"{name}@abc", **more)

    return both


def outcomes(database: Database) -> list[str]:
    return [decision.outcome for decision in database.decisions()]


def test_a_bad_canary_is_rolled_back(database: Database, sides: Callable[..., None]):
    sides(300, 0.05, 0.9)  # before it began: counts for nothing
    database.begin_canary(ALL, "thompson", 0.5)
    judge = CanaryJudge(database, settings())
    judge.look()
    assert database.canaries_seen()[ALL] is not None
    sides(60, 0.4, 0.1)
    answer_other(database)
    judge.look()
    stands = database.canaries_seen()[ALL]
    assert stands is not None
    assert (stands["incumbent"], stands["answers"], stands["incumbent_answers"]) == ("linucb", 60, 60)
    assert stands["difference"] < -0.1
    assert stands["look"] is None
    assert outcomes(database) == []  # it is too soon to look
    sides(40, 0.4, 0.1, kind="search")
    judge.look()
    judge.look()
    (decision,) = database.decisions()
    assert (decision.outcome, decision.candidate, decision.incumbent) == ("rolled back", "thompson", "linucb")
    look = decision.evidence["look"]
    assert (look["answers"], look["incumbent_answers"]) == (100, 100)
    assert look["low"] < look["mean"] - look["incumbent_mean"] < look["high"] < 0
    assert f"{look['high']:.5f}" in decision.why
    assert database.policy_heads()[1] == {ALL: Switch(ALL)}


def answer_other(database: Database) -> None:
    """What is neither side's: another policy, the model's own order, another kind of answer."""
    rows = [
        {"request_id": f"o{n}", "kind": kind, "product_ids": ["a"], "session_id": f"o{n}", "policy": policy}
        for n, (kind, policy) in enumerate(
            (("recommend", "epsilon_greedy@a"), ("recommend", "greedy@0"), ("similar", "thompson@a"), ("search", None))
        )
    ]
    assert database.add_impressions(rows).accepted == 4


def test_a_good_canary_is_promoted_on_enough_answers(database: Database, sides: Callable[..., None]):
    database.begin_canary(ALL, "thompson", 0.5)
    judge = CanaryJudge(database, settings())
    sides(120, 0.1, 0.4)
    judge.look()
    assert outcomes(database) == []  # proven, but 150 answers are wanted
    stands = database.canaries_seen()[ALL]
    assert stands is not None
    assert stands["look"]["low"] > 0
    sides(80, 0.1, 0.4)
    CanaryJudge(database, settings()).look()  # another process, as after a restart
    judge.look()
    assert outcomes(database) == ["promoted"]
    assert database.policy_heads()[1] == {ALL: Switch(ALL, "thompson")}


def test_a_gain_within_the_margin_ends_without_proof(database: Database, sides: Callable[..., None]):
    database.begin_canary("recommend", "thompson", 0.5)
    sides(420, 0.2, 0.4)
    CanaryJudge(database, settings(margin=0.3)).look()
    (decision,) = database.decisions()
    assert (decision.outcome, decision.evidence["look"]["answers"]) == ("ended without proof", 400)
    assert database.policy_heads()[1] == {"recommend": Switch("recommend")}


def test_answers_are_judged_when_they_have_settled(database: Database, sides: Callable[..., None]):
    database.begin_canary(ALL, "thompson", 0.5)
    sides(150, 0.4, 0.1)
    CanaryJudge(database, settings(settle_seconds=60)).look()
    stands = database.canaries_seen()[ALL]
    assert stands is not None
    assert stands["answers"] == 0


def test_what_happens_while_the_database_fails_is_made_up_for(
    database: Database, sides: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    database.begin_canary(ALL, "thompson", 0.5)
    judge = CanaryJudge(database, settings())
    judge.look()
    sides(100, 0.4, 0.1)

    def fail(*_: object) -> bool:
        raise StoreError("the database failed.")

    with monkeypatch.context() as patch:
        patch.setattr(database, "end_canary", fail)
        with pytest.raises(StoreError):
            judge.look()
    judge.look()
    assert outcomes(database) == ["rolled back"]


def test_a_canary_that_answers_nothing_any_more_ends(database: Database):
    database.begin_canary("recommend", "thompson", 0.5)
    database.switch_policy(Switch(ALL, kind="thompson"))
    CanaryJudge(database, settings()).look()
    assert outcomes(database) == ["ended by hand"]


# --- generations -----------------------------------------------------------------------------------------------------


@pytest.fixture
def activate(database: Database) -> Callable[[str], None]:
    for name in ("g1", "g2", "g3"):
        database.add_generation(name, f"/{name}", 0, "ready")

    def work(name: str) -> None:
        database.activate_generation(name)
        time.sleep(0.002)

    return work


@pytest.fixture
def judge(database: Database) -> Callable[..., None]:
    def look(**more: object) -> None:
        GenerationJudge(database, settings(online=None, **more), database.roll_back_generation).look()

    return look


def states(database: Database) -> list[str]:
    return [row.state for row in database.generations()]


def test_a_bad_generation_is_rolled_back_and_stays_back(
    database: Database, activate: Callable[[str], None], judge: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    activate("g1")
    answer(database, 150, 0.3, monkeypatch, kind="search", generation="g1")
    answer(database, 150, 0.3, monkeypatch, generation="g1")
    judge()
    activate("g2")
    judge()
    answer(database, 99, 0.3, monkeypatch, kind="search", generation="g2")
    answer(database, 99, 0.1, monkeypatch, generation="g2")
    judge()
    assert states(database) == ["retired", "active", "ready"]
    answer(database, 1, 0.1, monkeypatch, generation="g2")
    judge(fall=0.4)  # it is no fall by that much
    assert database.decisions() == []
    judge()
    judge()
    (decision,) = database.decisions()
    assert (decision.subject, decision.candidate, decision.incumbent, decision.outcome) == (
        "generation", "g2", "g1", "rolled back",
    )  # fmt: skip
    assert (decision.evidence["kind"], decision.evidence["look"]["incumbent_answers"]) == ("recommend", 150)
    assert states(database) == ["warming", "active", "ready"]
    activate("g1")  # as the conductor does once every replica holds it
    answer(database, 200, 0.0, monkeypatch, generation="g1")
    judge()
    assert states(database) == ["active", "retired", "ready"]  # whoever went back meant it
    activate("g2")
    answer(database, 200, 0.0, monkeypatch, generation="g2")
    judge()
    assert states(database) == ["retired", "active", "ready"]  # by hand: it was judged once
    assert len(database.decisions()) == 1


def test_a_generation_as_good_is_kept(
    database: Database, activate: Callable[[str], None], judge: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    activate("g1")
    answer(database, 200, 0.3, monkeypatch, generation="g1")
    answer(database, 20, 0.3, monkeypatch, kind="search", generation="g1")  # too few to compare with
    activate("g3")
    answer(database, 450, 0.3, monkeypatch, generation="g3")
    judge()
    judge()
    (decision,) = database.decisions()
    assert (decision.outcome, decision.candidate, decision.incumbent) == ("kept", "g3", "g1")
    assert decision.evidence["recommend"]["answers"] == 400
    assert states(database) == ["retired", "ready", "active"]


def test_a_rollback_waits_for_what_was_asked_for(
    database: Database, activate: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    activate("g1")
    answer(database, 150, 0.3, monkeypatch, generation="g1")
    activate("g2")
    answer(database, 150, 0.0, monkeypatch, generation="g2")
    database.warm_generation("g3")
    done: list[Decision] = []

    def roll_back(decision: Decision) -> bool:
        done.append(decision)
        return database.roll_back_generation(decision)

    watching = GenerationJudge(database, settings(online=None), roll_back)
    watching.look()
    assert (states(database), len(done)) == (["retired", "active", "warming"], 1)
    database.refuse_generation("g3", "it cannot be opened")
    watching.look()
    watching.look()
    assert (states(database), len(done)) == (["warming", "active", "ready"], 2)
