"""Simulated logs: how often intervals hold the truth, and how often good logs are called unreliable.

The short run is for every day; `make prove` takes 500 logs and writes benchmarks/results/off_policy_coverage.json.
"""

from pathlib import Path

import numpy as np
import pytest

from fuserank.artifacts import write_json
from fuserank.feedback.estimators import METHODS, estimate
from tests.fuserank.feedback.logs import make_shop

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
JUDGED = ("uniform", "linucb", "thompson")


def run(logs: int, answers: int, samples: int) -> dict[str, dict[str, dict[str, float]]]:
    """Policy → estimator → share of intervals that hold the truth, and share flagged."""
    shop = make_shop()
    truth = {policy: shop.true_value(policy) for policy in JUDGED}
    held = {key: np.zeros(logs, bool) for key in ((p, m, k) for p in JUDGED for m in METHODS for k in range(3))}
    for number in range(logs):
        served = shop.serve(answers, np.random.default_rng([number, 77]))
        for policy in JUDGED:
            found = estimate(shop.log(policy, *served), samples=samples, seed=number)
            for method, estimated in found.items():
                interval, bounds = estimated.bootstrap, estimated.bernstein
                held[policy, method, 0][number] = interval.low <= truth[policy] <= interval.high
                held[policy, method, 1][number] = bounds.low <= truth[policy] <= bounds.high
                held[policy, method, 2][number] = not estimated.reliable
    names = ("bootstrap", "bernstein", "unreliable")
    return {
        policy: {m: {name: float(held[policy, m, k].mean()) for k, name in enumerate(names)} for m in METHODS}
        for policy in JUDGED
    }


def check(found: dict, lowest: float, most: float) -> None:
    for policy, methods in found.items():
        for method, shares in methods.items():
            assert shares["bootstrap"] >= lowest, (policy, method, shares)
            assert shares["bernstein"] >= 0.95, (policy, method, shares)
            assert shares["unreliable"] <= most, (policy, method, shares)


def test_intervals_hold_the_truth() -> None:
    check(run(logs=40, answers=1000, samples=300), lowest=0.8, most=0.1)  # 4 standard errors around .95 of 40 logs


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_intervals_hold_the_truth_in_500_logs() -> None:
    found = run(logs=500, answers=1000, samples=500)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / "off_policy_coverage.json", {"logs": 500, "answers": 1000, "level": 0.95, "policies": found})
    check(found, lowest=0.9, most=0.05)


def test_the_policies_differ_enough_to_tell() -> None:
    shop = make_shop()
    values = [shop.true_value(policy) for policy in ("serving", *JUDGED)]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 0.003
