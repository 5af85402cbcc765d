"""The gate: the better goes through, the worse and the unproven do not, and every decision is on record."""

from pathlib import Path

import numpy as np
import pytest

from fuserank.artifacts import write_json
from fuserank.errors import PolicyError
from fuserank.evaluation.intervals import Interval
from fuserank.feedback.bounds import Bernstein
from fuserank.feedback.estimators import Estimate, Log, estimate
from fuserank.feedback.gate import Gate, decide_paired, record, recorded
from tests.fuserank.feedback.logs import make_shop

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def estimated(value: float, low: float, effective: float = 5000, warnings: tuple[str, ...] = ()) -> Estimate:
    return Estimate(
        value, Interval(value, low, 2 * value - low, 9000), Bernstein(low - 0.05, 1, True), effective, warnings
    )


def test_the_rule() -> None:
    gate, incumbent = Gate(margin=0.01, effective=1000), estimated(0.10, 0.09)
    assert gate.decide(estimated(0.13, 0.1101), incumbent).promoted
    assert "beats" in gate.decide(estimated(0.13, 0.1101), incumbent).reasons[0]
    for candidate, reason in (
        (estimated(0.13, 0.1099), "does not beat"),
        (estimated(0.13, float("nan")), "does not beat"),
        (estimated(0.13, 0.12, effective=999), "999 effective answers, 1000 wanted"),
        (estimated(0.13, 0.12, warnings=("weights too large",)), "candidate: weights too large"),
    ):
        decision = gate.decide(candidate, incumbent)
        assert not decision.promoted
        assert reason in " ".join(decision.reasons)
    assert not gate.decide(estimated(0.13, 0.12), estimated(0.1, 0.09, warnings=("few rewards",))).promoted
    cautious = Gate(margin=0.01, effective=1000, bound="bernstein")
    assert not cautious.decide(estimated(0.13, 0.12), incumbent).promoted
    assert cautious.decide(estimated(0.20, 0.17), incumbent).promoted
    with pytest.raises(PolicyError, match="margin"):
        Gate(margin=-1)


def test_every_decision_is_recorded(tmp_path) -> None:
    file, gate = tmp_path / "policy" / "decisions.jsonl", Gate(effective=100)
    assert recorded(file) == []
    record(file, gate.decide(estimated(0.2, np.nan), estimated(0.1, 0.09)), candidate="linucb@1")
    with file.open("a") as out:
        out.write('{"half')  # the machine went down here
    with file.open("a") as out:
        out.write("\n")
    record(file, gate.decide(estimated(0.2, 0.15), estimated(0.1, 0.09)), candidate="linucb@2", time="2026-01-01")
    first, second = recorded(file)
    assert (first["candidate"], first["promoted"]) == ("linucb@1", False)
    assert first["evidence"]["candidate"]["bootstrap"]["low"] is None
    assert second["promoted"]
    assert second["evidence"]["incumbent"]["value"] == 0.1
    assert second["evidence"]["rule"] == {"margin": 0.0, "effective": 100, "bound": "bootstrap"}


def decisions(trials: int, answers: int) -> dict[str, float]:
    """Share of trials in which each policy is promoted over the one that served."""
    shop, gate = make_shop(), Gate(effective=100)
    counts = dict.fromkeys(("best", "uniform", "linucb"), 0)
    for trial in range(trials):
        served = shop.serve(answers, np.random.default_rng([trial, 5]))
        own = Log(served[2], np.ones_like(served[2]), largest=1.0)
        incumbent = estimate(own, ["ips"], samples=200, seed=trial)["ips"]
        for policy in counts:
            found = estimate(shop.log(policy, *served), ["dr"], samples=200, seed=trial)["dr"]
            counts[policy] += gate.decide(found, incumbent).promoted
    return {policy: count / trials for policy, count in counts.items()}


def test_the_better_is_promoted_and_the_worse_refused() -> None:
    found = decisions(trials=10, answers=12_000)
    assert found["best"] >= 0.8
    assert found["uniform"] == found["linucb"] == 0


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_the_better_is_promoted_and_the_worse_refused_in_200_trials() -> None:
    found = decisions(trials=200, answers=20_000)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / "gate.json", {"trials": 200, "answers": 20_000, "promoted": found})
    assert found["best"] >= 0.95
    assert found["uniform"] <= 0.05
    assert found["linucb"] <= 0.05


def paired(mean: float, half: float, n: int = 100) -> dict:
    return {"ours": 0.5 + mean, "theirs": 0.5, "mean": mean, "low": mean - half, "high": mean + half, "n": n}


def test_a_generation_must_be_proven_better_somewhere_and_much_worse_nowhere() -> None:
    better, alike, few = paired(0.03, 0.02), paired(-0.005, 0.02), paired(0.2, 0.05, n=49)
    assert decide_paired({"search": better, "recommendation": alike}, loss=0.01).promoted
    assert "search: 0.5300 after 0.5000" in decide_paired({"search": better}).reasons[0]
    for figures, rule, reason in (
        ({"search": alike}, {"loss": 0.01}, "nothing is proven better"),
        ({"search": better}, {"margin": 0.011}, "by more than 0.011"),
        ({"search": better, "recommendation": alike}, {"loss": 0.004}, "recommendation is worse"),
        ({"search": few}, {}, "49 asked, 50 wanted"),
        ({"search": paired(0.1, 0.05) | {"low": None}}, {}, "nothing is proven better"),
        ({}, {}, "nothing is proven better"),
    ):
        decision = decide_paired(figures, **rule)
        assert not decision.promoted
        assert reason in " ".join(decision.reasons)
