"""Looks at live answers again and again: how often they are wrong where nothing differs, and how soon they see a loss.

Answers are drawn as a shop has them: visitors with tastes of their own come back, so their answers hang together.
"""

import math

import numpy as np
import pytest

from fuserank.errors import PolicyError
from fuserank.feedback.sequential import Comparison, Look

POSITIONS, VISITS = 5, 3  # of an answer; answers of a visitor on average


def simulate(seed: int, rates: tuple[float, float], share: float, last: int) -> list[Look]:
    """The looks at one canary. rates: of the candidate and the incumbent, reward a position."""
    random, comparison, looks = np.random.default_rng(seed), Comparison(last), []
    for number in range(100 * last):
        candidate = random.random() < share
        rate = rates[0] if candidate else rates[1]
        taste = random.beta(2, 2 / rate - 2)
        for clicks in random.binomial(POSITIONS, taste, random.geometric(1 / VISITS)):
            if not candidate:
                comparison.incumbent(f"v{number}", clicks / POSITIONS)
            elif look := comparison.candidate(f"v{number}", clicks / POSITIONS):
                looks.append(look)
                if look.last:
                    return looks
    raise AssertionError("the simulation is too short")


def test_it_looks_at_numbers_known_beforehand():
    comparison = Comparison(last=1000)
    for number in range(50):
        comparison.incumbent(f"old{number}", 0.5)
    looks = [look for n in range(1200) if (look := comparison.candidate(f"new{n}", n % 2))]
    assert [look.answers for look in looks] == [100, 200, 400, 800, 1000]
    assert comparison.looks == 5
    assert [look.last for look in looks] == [False] * 4 + [True]
    assert comparison.latest == looks[-1]
    assert comparison.candidates.answers == 1000  # nothing counts that no look will see
    with pytest.raises(PolicyError, match="first ≤ last"):
        Comparison(last=50)


def test_the_interval_is_that_of_resampled_visitors():
    """Width: Student's point times what visitors drawn with replacement give as standard error."""
    random, comparison = np.random.default_rng(1), Comparison(last=400)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    look = None
    while look is None or not look.last:
        side = int(random.random() < 0.7)
        values = random.binomial(POSITIONS, random.beta(2, 5 + 3 * side), random.integers(1, 6)) / POSITIONS
        name = f"{side}-{len(sides[side])}"
        for value in values:
            if side:
                comparison.incumbent(name, value)
            else:
                look = comparison.candidate(name, value) or look
        sides[side].append(values)
    assert look.low is not None
    assert look.high is not None
    spread = []
    for side in sides:
        drawn = random.integers(0, len(side), (3000, len(side)))
        sums, counts = np.array([[v.sum(), len(v)] for v in side]).T
        spread.append((sums[drawn].sum(1) / counts[drawn].sum(1)).std())
    point = 2.42  # of Student's t, 1 − 0.05 / 2 / 3 looks, more than 100 visitors
    assert (look.high - look.low) / 2 == pytest.approx(point * math.hypot(*spread), rel=0.06)
    assert look.difference == pytest.approx((look.low + look.high) / 2)


def test_false_alarms_stay_below_the_nominal_rate():
    """No difference, 600 canaries, five looks each: wrong at any look at most once in twenty, either way."""
    runs = [simulate(seed, (0.1, 0.1), 0.5, 1600) for seed in range(600)]
    wrong = np.mean([any(look.worse() or look.better() for look in looks) for looks in runs])
    rolled_back = np.mean([any(look.worse() for look in looks) for looks in runs])
    assert wrong <= 0.05
    assert rolled_back <= 0.025
    naive = np.mean([any(abs(z) > 1.96 for z in scores(looks)) for looks in runs])
    assert naive > 0.1  # what looking again and again does to the intervals of a single look


def scores(looks: list[Look]) -> list[float]:
    """Each look's difference in standard errors; 2.60 is Student's point for five looks."""
    return [look.difference / ((look.high - look.low) / 2 / 2.60) for look in looks if look.low is not None]  # type: ignore[operator]


def test_rare_rewards_raise_no_alarm():
    """One position in 500 is bought: most small samples hold nothing at all."""
    runs = [simulate(seed, (0.002, 0.002), 0.05, 400) for seed in range(40)]
    assert not any(look.worse() for looks in runs for look in looks)
    comparison = Comparison(last=1000)
    for number in range(5000):
        comparison.incumbent(f"old{number}", float(number % 250 == 0))
    looks = [look for n in range(200) if (look := comparison.candidate(f"new{n}", 0.0))]
    assert [(look.worse(), look.mean, look.incumbent_mean) for look in looks] == [(False, 0.0, 0.004)] * 2


def test_a_clear_loss_is_seen_early_and_a_gain_too():
    losses = [simulate(seed, (0.1, 0.2), 0.2, 1600) for seed in range(60)]
    assert all(any(look.worse() for look in looks) for looks in losses)
    assert np.mean([any(look.worse() for look in looks[:2]) for looks in losses]) > 0.9  # by 200 answers of its own
    gains = [simulate(seed, (0.2, 0.1), 0.2, 1600) for seed in range(60)]
    assert all(any(look.better() for look in looks) for looks in gains)
    assert not any(look.worse() for looks in gains for look in looks)
    assert not any(look.better(0.2) for looks in gains for look in looks)  # not by that much


def test_a_handful_of_visitors_proves_nothing():
    comparison = Comparison(last=200)
    for number in range(500):
        comparison.incumbent(f"old{number}", 0.5)
        comparison.candidate(f"new{number % 9}", 0.0)
    assert comparison.latest is not None
    assert (comparison.latest.low, comparison.latest.worse(), comparison.latest.visitors) == (None, False, 9)
