"""Do 95 % intervals hold the truth 95 times in 100, and does the paired test cry wolf 5 times in 100?

2,000 samples are drawn from real per-query nDCG@10, the seed fixed beforehand. The long table is a proof (`make
prove`), whose figures go to benchmarks/results/evaluation_coverage.json.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fuserank.evaluation.intervals import SMALL, interval, paired_difference
from fuserank.evaluation.significance import paired_test
from tests.fuserank.evaluation import real

SEED = 20261125
SAMPLES = 2000
RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "evaluation_coverage.json"
HERE = real.DATA.is_dir()
LEAST = {"mixture": 0.92, "icecat": 0.93, "fashion": 0.93}
"""Half of the mixture's differences are 0, so that of 50 queries 25 tell something: harder than both real ones."""
Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def populations() -> dict[str, Callable[[], Pair]]:
    return {"mixture": real.mixture, "icecat": real.icecat, "fashion": real.fashion}


def covered(values: np.ndarray, n: int, resamples: int, method: str = "bca") -> float:
    """Share of SAMPLES intervals, each of n values drawn from these, that hold their mean."""
    random, truth, inside = np.random.default_rng(SEED), values.mean(), 0
    for seed in range(SAMPLES):
        found = interval(random.choice(values, size=n), resamples, seed=seed, method=method)
        inside += found.low <= truth <= found.high
    return inside / SAMPLES


def covered_difference(pair: Pair, n: int, resamples: int) -> float:
    random, truth, inside = np.random.default_rng(SEED), float((pair[0] - pair[1]).mean()), 0
    for seed in range(SAMPLES):
        rows = random.integers(0, len(pair[0]), size=n)
        found = paired_difference(pair[0][rows], pair[1][rows], resamples, seed=seed)
        inside += found.low <= truth <= found.high
    return inside / SAMPLES


def false_alarms(pair: Pair, n: int, flips: int) -> float:
    """Share of SAMPLES comparisons of two systems that are called different at 5 %, each query's answers swapped by a
    coin: so neither is better, while hard queries stay hard."""
    random, alarms = np.random.default_rng(SEED), 0
    for seed in range(SAMPLES):
        rows, swap = random.integers(0, len(pair[0]), size=n), random.random(n) < 0.5
        a, b = pair[0][rows], pair[1][rows]
        alarms += paired_test(np.where(swap, a, b), np.where(swap, b, a), flips, seed) <= 0.05
    return alarms / SAMPLES


def false_alarms_shifted(pair: Pair, n: int, flips: int) -> float:
    """The same where the mean difference is 0 but its distribution is lopsided, as it was measured."""
    random, alarms = np.random.default_rng(SEED), 0
    level = pair[0] - pair[1] - (pair[0] - pair[1]).mean()
    for seed in range(SAMPLES):
        some = random.choice(level, size=n)
        alarms += paired_test(some, np.zeros(n), flips, seed) <= 0.05
    return alarms / SAMPLES


@pytest.mark.parametrize(
    "name", ["mixture", pytest.param("icecat", marks=pytest.mark.skipif(not HERE, reason=real.REASON))]
)
def test_fifty_queries_are_enough(name, populations):
    pair = populations[name]()
    assert 0.93 <= covered(pair[0], SMALL, 400) <= 0.965
    assert LEAST[name] <= covered_difference(pair, SMALL, 400) <= 0.965
    assert 0.04 <= false_alarms(pair, SMALL, 400) <= 0.065


@pytest.mark.prove
@pytest.mark.skipif(not HERE, reason=real.REASON)
@pytest.mark.timeout(3000)
def test_the_whole_table(populations):
    table: dict[str, dict] = {}
    for name, make in populations.items():
        pair = make()
        zeros, ones = float((pair[0] == 0).mean()), float((pair[0] == 1).mean())
        table[name] = {"queries": len(pair[0]), "mean": float(pair[0].mean()), "zeros": zeros, "ones": ones}
        for n in (20, 50, 172, 1000):
            resamples = 1000  # half of the default: a little to the loss of the intervals, and half the time
            row = table[name][f"n={n}"] = {
                "mean": covered(pair[0], n, resamples),
                "percentile": covered(pair[0], n, resamples, "percentile"),
                "difference": covered_difference(pair, n, resamples),
                "false alarms": false_alarms(pair, n, resamples),
                "false alarms, lopsided": false_alarms_shifted(pair, n, resamples),
            }
            print(name, n, row, flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"seed": SEED, "samples": SAMPLES, "resamples": 1000, "table": table}, indent=1) + "\n"
    )
    for name, rows in table.items():
        for n in (50, 172, 1000):
            row = rows[f"n={n}"]
            assert 0.93 <= row["mean"] <= 0.965, (name, n)
            assert LEAST[name] <= row["difference"] <= 0.965, (name, n)
            assert 0.04 <= row["false alarms"] <= 0.065, (name, n)
