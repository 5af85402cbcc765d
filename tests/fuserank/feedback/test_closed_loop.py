"""The closed loop: a policy that learns from clicks against the fixed ranker it replaces and the best there is.

The short run shows that it gains. `make prove` serves 20,000 slates with 5 seeds and writes closed_loop.json and its
regret curve to benchmarks/results/.
"""

from pathlib import Path

import numpy as np
import pytest

from fuserank.artifacts import write_json
from fuserank.evaluation import plots
from fuserank.evaluation.intervals import paired_difference
from fuserank.feedback.policies.build import build_policy
from fuserank.feedback.policies.state import LinearState
from fuserank.records.synthetic.behaviour import click_chance
from tests.fuserank.feedback.closed_loop import CANDIDATES, NAMES, TABLE, World, serve

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
LAST = 2000  # slates that are judged


def run(seed: int, slates: int) -> dict[str, np.ndarray]:
    world = World(seed)
    policy = build_policy("linucb", LinearState(NAMES), share=0.02, alpha=0.3)
    fixed, learnt = serve(world, slates, seed), serve(world, slates, seed, policy)
    np.testing.assert_array_equal(fixed["oracle"], learnt["oracle"])  # the same requests
    return {"frozen": fixed["expected"], "policy": learnt["expected"], "oracle": fixed["oracle"]}


def closed(found: dict[str, np.ndarray]) -> float:
    """Share of the gap between frozen ranker and oracle that the policy closes on the last slates."""
    means = {name: float(values[-LAST:].mean()) for name, values in found.items()}
    return (means["policy"] - means["frozen"]) / (means["oracle"] - means["frozen"])


def test_the_worlds_chances_are_the_shops() -> None:
    """Tables of numbers against the shop's own rules, one pair of user and product at a time."""
    world, random = World(3), np.random.default_rng(0)
    requests = world.requests(random)
    chances = world.chances(requests)
    for _ in range(200):
        b, k = int(random.integers(len(chances))), int(random.integers(CANDIDATES))
        user, product = world.users[requests.users[b]], world.products[requests.candidates[b, k]]
        kind, colour = TABLE["type"][requests.pages[b]], TABLE["colour"][requests.wishes[b, 0]]
        pattern = TABLE["pattern"][requests.wishes[b, 1]]
        interest = (product.type == kind) * (
            0.7 + 0.65 * (product.colour == colour) + 0.65 * (product.pattern == pattern)
        )
        assert chances[b, k] == pytest.approx(click_chance(user.utility(product), interest, 0))
    assert all(len(set(row)) == CANDIDATES for row in requests.candidates)


def test_learning_gains() -> None:
    found = run(seed=0, slates=6000)
    difference = paired_difference(found["policy"][-LAST:], found["frozen"][-LAST:])
    assert difference.low > 0
    assert closed(found) > 0.2


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_half_of_the_gap_is_closed() -> None:
    runs = [run(seed, 20_000) for seed in range(5)]
    shares = [closed(found) for found in runs]
    gains = [paired_difference(found["policy"][-LAST:], found["frozen"][-LAST:]) for found in runs]
    RESULTS.mkdir(parents=True, exist_ok=True)
    rates = [{name: float(values[-LAST:].mean()) for name, values in found.items()} for found in runs]
    regret = {
        name: [
            (n, float(np.mean([(found["oracle"] - found[name])[:n].sum() for found in runs])))
            for n in range(1000, 20_001, 1000)
        ]
        for name in ("frozen", "policy")
    }
    content = {"slates": 20_000, "closed": shares, "rates": rates, "gains": [gain.as_dict() for gain in gains]}
    write_json(RESULTS / "closed_loop.json", {**content, "regret": regret})
    (RESULTS / "closed_loop.png").write_bytes(plots.curves(regret, "slates", "summed click rate short of the oracle"))
    assert all(gain.low > 0 for gain in gains)
    assert np.mean(shares) >= 0.5
