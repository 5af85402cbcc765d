"""The front against all pairs, the choice within a limit, and importance of a parameter that was planted."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from fuserank.errors import StageError
from tune.front import chosen, front, importance
from tune.ledger import Trial, best


def trials(scores, stopped=()) -> list[Trial]:
    return [
        Trial(n, {}, score, 1.0, None if score is not None else "broken", 1 if n in stopped else None)
        for n, score in enumerate(scores)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nobody_beats(seed):
    dice = np.random.default_rng(seed)
    found = trials([None, *np.round(dice.random(40), 1)], stopped=(5, 6))
    latency = {n: float(np.round(dice.random(), 1)) for n in range(1, 40)}
    able = [t for t in found if t.complete and t.number in latency]

    def beats(a: Trial, b: Trial) -> bool:
        faster, better = latency[a.number] <= latency[b.number], a.score >= b.score
        return faster and better and (latency[a.number] < latency[b.number] or a.score > b.score)

    want = {(latency[t.number], t.score) for t in able if not any(beats(other, t) for other in able)}
    line = front(found, latency)
    assert [(latency[t.number], t.score) for t in line] == sorted(want)


def test_the_choice_keeps_the_limit_if_anything_does():
    found, latency = trials([0.5, 0.9, 0.7, None, 0.99], stopped=(4,)), {0: 1.0, 1: 9.0, 2: 2.0, 4: 0.1}
    assert chosen(found, latency).number == 1
    assert chosen(found, latency, 5.0).number == 2
    assert chosen(found, latency, 0.5).number == 1  # none does
    assert best(found).number == 1
    with pytest.raises(StageError, match="all 1 trials failed; the first: broken"):
        best(trials([None]))


def test_importance_finds_what_was_planted():
    space = {"x": FloatDistribution(0.0, 1.0), "idle": FloatDistribution(0.1, 10.0, log=True)} | {
        "kind": CategoricalDistribution(["a", "b", "c"])
    }
    dice = np.random.default_rng(0)
    found = []
    for number in range(60):
        params = {"x": dice.random(), "idle": 10 ** dice.uniform(-1, 1), "kind": dice.choice(["a", "b", "c"]).item()}
        found.append(Trial(number, params, 1 - abs(params["x"] - 0.5) + 0.2 * (params["kind"] == "b"), 1.0))
    shares = importance(found, space)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "x"
    assert shares["x"] > 0.5
    assert list(shares)[-1] == "idle"
    assert importance(found[:7], space) == {}
    assert importance([Trial(n, found[n].params, 1.0, 1.0) for n in range(20)], space) == {}
