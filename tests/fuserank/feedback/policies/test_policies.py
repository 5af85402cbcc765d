"""Every policy: its propensities against the frequencies of many draws, and its ranking against dense formulas."""

import itertools
from collections import Counter

import numpy as np
import pytest

from fuserank.errors import PolicyError
from fuserank.feedback.policies.build import POLICIES, build_policy
from fuserank.feedback.policies.exploration import Exploration
from fuserank.feedback.policies.slates import NONE, at
from fuserank.feedback.policies.state import LinearState

NAMES = ("bias", "a", "b")
RANDOM = np.random.default_rng(5)
FEATURES = np.concatenate([np.ones((1, 5, 1)), RANDOM.normal(size=(1, 5, 2))], axis=2)  # one request, five candidates
MASK = np.array([[True, True, False, True, True]])
DRAWS = 20_000


def learnt(seed: int = 3) -> LinearState:
    random, state = np.random.default_rng(seed), LinearState(NAMES)
    features = np.concatenate([np.ones((30, 1)), random.normal(size=(30, 2))], axis=1)
    state.observe(features, (random.random(30) < 0.3).astype(float))
    return state


def policies(**more) -> list:
    settings = {"thompson": {"noise": 0.6, "samples": 2000}}
    return [build_policy(kind, learnt(), **settings.get(kind, {}), **more) for kind in POLICIES]


@pytest.fixture(params=POLICIES)
def policy(request):
    return next(p for p in policies(share=0.3) if p.kind == request.param)


def test_propensities_are_the_frequencies_of_many_draws(policy) -> None:
    policy.samples = 50  # here the slates are counted, not estimated
    slates = policy.choose(np.repeat(FEATURES, DRAWS, 0), np.arange(DRAWS), 3, np.repeat(MASK, DRAWS, 0))
    policy.samples = 4000
    chances = policy.chances(FEATURES, 3, MASK)
    seen = np.stack([np.bincount(slates.rows[:, p], minlength=5) / DRAWS for p in range(3)], axis=1)
    error = np.sqrt(chances.values[0] * (1 - chances.values[0]) / DRAWS)
    assert (np.abs(seen - chances.values[0]) <= 4.5 * (error + chances.errors[0]) + 1e-12).all()
    np.testing.assert_allclose(chances.values.sum(1), 1, atol=1e-12)
    assert (chances.values[0, 2] == 0).all()  # no candidate
    assert (chances.values[0, MASK[0]] >= 0.3 / 4 - 1e-12).all()  # the floor
    assert abs(slates.explored.mean() - 0.3) < 4.5 * np.sqrt(0.21 / DRAWS)
    counted = Counter(map(tuple, slates.rows))
    assert set(counted) == set(itertools.permutations((0, 1, 3, 4), 3))  # every slate can happen
    logged = dict(zip(map(tuple, slates.rows), slates.slate_propensity, strict=True))
    if policy.kind != "thompson":
        assert sum(logged.values()) == pytest.approx(1, abs=1e-12)
    for slate, count in counted.items():
        p = slates.slate_propensity[(slates.rows == slate).all(1)].mean()
        assert abs(count / DRAWS - p) < 4.5 * np.sqrt(p * (1 - p) / DRAWS) + 0.002


def test_logged_propensities_are_the_chances_of_what_was_shown(policy) -> None:
    policy.samples = 4000
    features = np.concatenate([np.ones((6, 5, 1)), RANDOM.normal(size=(6, 5, 2))], axis=2)
    slates, chances = policy.choose(features, np.arange(6), 3), policy.chances(features, 3)
    wanted, error = at(chances.values, slates.rows), at(chances.errors, slates.rows)
    assert (np.abs(slates.propensities - wanted) <= 5 * (slates.errors + error) + 1e-12).all()
    assert (slates.propensities >= 0.3 / 5 - 1e-12).all()
    exact = policy.kind != "thompson"
    assert (slates.errors == 0).all() == (slates.slate_error == 0).all() == exact


def test_thompsons_errors_are_its_errors() -> None:
    """The spread of repeated estimates of one propensity is the standard error logged with it."""
    policy = next(p for p in policies(share=0.1) if p.kind == "thompson")
    policy.samples = 100
    found = [policy.chances(FEATURES, 2, seeds=np.array([seed])) for seed in range(400)]
    values, errors = (np.stack([getattr(f, name)[0] for f in found]) for name in ("values", "errors"))
    spread = values.std(0)
    likely = (values.mean(0) > 0.1) & (values.mean(0) < 0.9)
    assert likely.sum() > 3
    np.testing.assert_allclose(errors.mean(0)[likely], spread[likely], rtol=0.15)
    assert (errors > 0).all()  # a candidate never drawn is not certain to be impossible


def test_rankings_against_dense_formulas() -> None:
    state, features = learnt(), RANDOM.normal(size=(40, 6, 3))
    precision = state.gram + 2.0 * np.eye(3)
    mean = np.linalg.inv(precision) @ state.response
    width = np.sqrt(np.einsum("bki,ij,bkj->bk", features, np.linalg.inv(precision), features))
    greedy = build_policy("epsilon_greedy", state, share=0.0, ridge=2.0).choose(features, np.arange(40), 6)
    ucb = build_policy("linucb", state, share=0.0, ridge=2.0, alpha=1.5).choose(features, np.arange(40), 6)
    assert (greedy.rows == np.argsort(-(features @ mean), axis=1)).all()
    assert (ucb.rows == np.argsort(-(features @ mean + 1.5 * width), axis=1)).all()
    assert (greedy.rows != ucb.rows).any()
    assert (greedy.propensities == 1).all()
    assert (greedy.slate_propensity == 1).all()


def test_a_request_is_answered_alike_in_any_batch_and_on_any_replica(policy) -> None:
    features, seeds = RANDOM.normal(size=(9, 5, 3)), RANDOM.integers(0, 2**63, 9)
    replica = build_policy(policy.kind, LinearState.from_dict(policy.state.as_dict()), share=0.3)
    if policy.kind == "thompson":
        replica.noise, replica.samples = policy.noise, policy.samples
    whole = policy.choose(features, seeds, 2)
    for place in RANDOM.permutation(9):
        alone = replica.choose(features[place : place + 1], seeds[place : place + 1], 2)
        assert (alone.rows[0] == whole.rows[place]).all()
        assert alone.propensities[0].tolist() == whole.propensities[place].tolist()
    assert replica.name == policy.name
    policy.observe(np.ones((1, 3)), np.ones(1))
    assert replica.name != policy.name


def test_frozen_explores_nothing(policy) -> None:
    policy.frozen = True
    features = RANDOM.normal(size=(200, 5, 3))
    slates = policy.choose(features, np.arange(200), 3)
    assert (slates.rows == np.argsort(-(features @ policy.posterior.mean), axis=1)[:, :3]).all()
    assert (slates.propensities == 1).all()
    assert not slates.explored.any()
    assert set(np.unique(policy.chances(features, 3).values)) == {0, 1}


def test_fewer_candidates_than_positions(policy) -> None:
    mask = np.array([[True, False, True, False, False]])
    slates = policy.choose(FEATURES, np.array([8]), 4, mask)
    assert sorted(slates.rows[0, :2].tolist()) == [0, 2]
    assert slates.rows[0, 2:].tolist() == [NONE, NONE]
    assert np.isnan(slates.propensities[0, 2:]).all()
    chances = policy.chances(FEATURES, 4, mask).values[0]
    np.testing.assert_allclose(chances.sum(0), [1, 1, 0, 0], atol=1e-12)
    assert policy.choose(FEATURES, np.array([8]), 9).rows.shape == (1, 5)


def test_learning_finds_the_better_feature(policy) -> None:
    """A candidate with a = 1 is clicked three times as often; it comes to stand first."""
    policy.state = LinearState(NAMES)
    random = np.random.default_rng(1)
    for step in range(60):
        features = np.concatenate([np.ones((8, 5, 1)), random.integers(0, 2, (8, 5, 2))], axis=2).astype(float)
        rows = policy.choose(features, np.arange(8) + 8 * step, 2).rows
        shown = np.take_along_axis(features, rows[..., None], 1).reshape(-1, 3)
        policy.observe(shown, (random.random(16) < 0.2 + 0.4 * shown[:, 1]).astype(float))
    policy.frozen = True
    rows = policy.choose(features, np.arange(8), 1).rows
    has = features[..., 1].any(1)
    assert np.take_along_axis(features[..., 1], rows, 1)[has, 0].all()


def test_budgets_by_scenario() -> None:
    exploration = Exploration(0.25, {"checkout": 0.0, "home": 0.5}, daily=2)
    assert exploration.shares(["home", "checkout", None, "home", "search"], day=1).tolist() == [0.5, 0, 0.25, 0.5, 0.25]
    assert exploration.spent("home", 1) == 1
    assert exploration.shares(["home"] * 4, day=1).tolist() == [0.5, 0.5, 0, 0]
    assert exploration.shares(["search"], day=1).tolist() == [0.25]  # another's budget
    assert exploration.shares(["home"], day=2).tolist() == [0.5]
    slates = build_policy("linucb", learnt(), share=1.0).choose(
        np.repeat(FEATURES, 50, 0), np.arange(50), 2, share=np.zeros(50)
    )
    assert not slates.explored.any()
    with pytest.raises(PolicyError, match="between 0 and 1"):
        Exploration(0.1, {"home": 1.5})


def test_refused() -> None:
    with pytest.raises(PolicyError, match="no policy 'ucb'"):
        build_policy("ucb", learnt())
    with pytest.raises(PolicyError, match="alpha"):
        build_policy("epsilon_greedy", learnt(), alpha=1.0)
    for kind, settings in (("linucb", {"alpha": -1}), ("thompson", {"samples": 1}), ("linucb", {"share": 2})):
        with pytest.raises(PolicyError):
            build_policy(kind, learnt(), **settings)
    policy = build_policy("linucb", learnt())
    for features, seeds, mask in (
        (FEATURES[0], [1], None),
        (FEATURES, [1, 2], None),
        (FEATURES * np.nan, [1], None),
        (FEATURES, [1], np.zeros((1, 5), bool)),
    ):
        with pytest.raises(PolicyError):
            policy.choose(features, np.array(seeds), 2, mask)
    assert policy.choose(np.where(MASK[..., None], FEATURES, np.nan), np.array([1]), 2, MASK).rows.min() >= 0
