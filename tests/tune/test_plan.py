"""The plan follows from its seed and from results alone, whatever their order; it learns, and it knows what cost is."""

import random

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from tune.ledger import Trial
from tune.plan import Halving, Plan, Step

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.01, 1.0, log=True)} | {
    "kind": CategoricalDistribution(["a", "b"])
}


def score(step: Step) -> float:
    return (step.params["kind"] == "b") - (step.params["x"] - 0.3) ** 2 - 0.1 * abs(np.log(step.params["y"]))


def drive(plan: Plan, order: int, at_once: int, broken: tuple[int, ...] = ()) -> dict[int, dict]:
    """Run a plan with results that come back in a random order; values by trial."""
    dice, running, tried = random.Random(order), [], {}
    while True:
        while len(running) < at_once and (step := plan.next()) is not None:
            running.append(step)
        if not running:
            return tried
        step = running.pop(dice.randrange(len(running)))
        tried[step.number] = step.params
        failed = step.number in broken
        error = "broken" if failed else None
        plan.finished(Trial(step.number, step.params, None if failed else score(step), 1.0, error, cost=step.cost))


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
@pytest.mark.parametrize("cost", [None, lambda params: params["x"]])
def test_any_order_of_results_gives_the_same_trials(algorithm, cost):
    runs = [
        drive(Plan(SPACE, [], 30, algorithm, 7, lag=4, cost=cost), order, at_once, broken=(3, 11))
        for order, at_once in ((0, 1), (1, 4), (2, 3), (3, 2))
    ]
    assert sorted(runs[0]) == list(range(30))
    assert all(run == runs[0] for run in runs[1:])
    assert drive(Plan(SPACE, [], 30, algorithm, 8, lag=4, cost=cost), 0, 2) != runs[0]


def test_tpe_learns_where_random_does_not():
    def late(algorithm: str, seed: int) -> float:
        tried = drive(Plan(SPACE, [], 40, algorithm, seed), seed, 2)
        return float(np.mean([score(Step(n, tried[n], {}, None)) for n in range(25, 40)]))

    gains = [late("tpe", seed) - late("random", seed) for seed in range(5)]
    assert min(gains) > 0


def test_what_is_known_is_not_handed_out_again():
    whole = drive(Plan(SPACE, [], 20, "tpe", 1), 0, 2)
    plan, other = Plan(SPACE, [], 20, "tpe", 1), (2, 5)
    results = {n: Trial(n, p, score(Step(n, p, {}, None)), 1.0) for n, p in whole.items() if n < 12 and n not in other}
    plan.known(results)
    rest = drive(plan, 0, 2)
    assert rest == {n: whole[n] for n in (*other, *range(12, 20))}


@pytest.mark.parametrize("alike", [True, False])
def test_a_front_learns_of_stopped_trials_only_where_they_are_measured_alike(alike):
    def run(shown: float) -> list[dict]:
        plan, tried = Plan(SPACE, [], 30, "tpe", 7, lag=1, cost=lambda params: params["x"], alike=alike), []
        while (step := plan.next()) is not None:
            ended = 1 if step.number % 3 == 1 else None
            found = shown if ended else score(step)
            plan.finished(Trial(step.number, step.params, found, 1.0, None, ended, cost=step.cost))
            tried.append(step.params)
        return tried

    assert (run(100.0) == run(-100.0)) is not alike


def test_rungs():
    assert Halving(12, 1, 3).rungs() == [1, 3, 9]
    assert Halving(9, 1, 3).rungs() == [1, 3]
    assert Halving(4, 2, 2).rungs() == [2]
    assert Halving(1).rungs() == []


def test_what_costs_less_is_stopped_only_by_what_costs_as_little():
    cheap, dear = {"x": 0.1}, {"x": 0.9}
    space = {"x": FloatDistribution(0.0, 1.0)}
    points = [dear, dear | {"x": 0.8}, dear | {"x": 0.7}, cheap]
    plan = Plan(space, points, 5, "random", lag=1, halving=Halving(2), cost=lambda params: params["x"])
    for _ in range(3):
        step = plan.next()
        assert step is not None
        assert step.least == {}
        plan.finished(Trial(step.number, step.params, 0.9, 1.0, history=[0.5 + step.number / 10, 0.9], cost=step.cost))
    step = plan.next()
    assert step is not None
    assert step.params == cheap
    assert step.least == {}  # nothing as cheap has run
    single = Plan(space, points, 5, "random", lag=1, halving=Halving(2))
    for _ in range(3):
        step = single.next()
        assert step is not None
        single.finished(Trial(step.number, step.params, 0.9, 1.0, history=[0.5 + step.number / 10, 0.9]))
    step = single.next()
    assert step is not None
    assert step.least == {1: pytest.approx(0.5 + (2 / 3) * 0.2)}
