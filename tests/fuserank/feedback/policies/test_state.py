"""The sums a policy learns: against dense formulas, in any order, on disk."""

import json

import numpy as np
import pytest

from fuserank.errors import PolicyError
from fuserank.feedback.policies.state import GRID, LinearState

NAMES = ("bias", "a", "b", "c", "d")
RANDOM = np.random.default_rng(0)


def events(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    features = RANDOM.normal(size=(count, 5))
    features[:, 0] = 1
    return np.rint(features / GRID) * GRID, (RANDOM.random(count) < 0.3).astype(float)


def test_posterior_against_sherman_morrison() -> None:
    """Each event updates the inverse by the rank-one formula; the state inverts the sum once."""
    features, rewards = events()
    inverse, response = np.eye(5) / 2.5, np.zeros(5)
    for x, r in zip(features, rewards, strict=True):
        column = inverse @ x
        inverse -= np.outer(column, column) / (1 + x @ column)
        response += r * x
    state = LinearState(NAMES)
    state.observe(features, rewards)
    posterior = state.posterior(ridge=2.5)
    np.testing.assert_allclose(posterior.whiten.T @ posterior.whiten, inverse, atol=1e-12)
    np.testing.assert_allclose(posterior.mean, inverse @ response, atol=1e-12)
    points = RANDOM.normal(size=(7, 3, 5))
    expected = np.sqrt(np.einsum("bki,ij,bkj->bk", points, inverse, points))
    np.testing.assert_allclose(posterior.widths(points), expected, atol=1e-12)
    draws = posterior.draws(RANDOM.standard_normal((200_000, 5)), noise=0.3)
    np.testing.assert_allclose(draws.mean(0), posterior.mean, atol=5 * 0.3 * inverse.diagonal().max() ** 0.5 / 447)
    np.testing.assert_allclose(np.cov(draws.T), 0.09 * inverse, atol=0.02 * 0.09 * inverse.max())


def test_values_between_grid_points_are_rounded_only() -> None:
    features, rewards = RANDOM.uniform(-3, 3, size=(1000, 5)), RANDOM.uniform(0, 1, 1000)
    state = LinearState(NAMES)
    state.observe(features, rewards)
    np.testing.assert_allclose(state.gram, features.T @ features, atol=1000 * 3 * GRID)
    np.testing.assert_allclose(state.response, rewards @ features, atol=1000 * 2 * GRID)


def test_any_order_and_grouping_gives_the_same_bits() -> None:
    features, rewards = RANDOM.uniform(-9, 9, size=(600, 5)) * 10.0 ** RANDOM.integers(-3, 1, (600, 1)), events(600)[1]
    whole = LinearState(NAMES)
    whole.observe(features, rewards)
    for _ in range(4):
        order, cuts = RANDOM.permutation(600), np.sort(RANDOM.integers(0, 600, 5))
        parts = []
        for rows in np.split(order, cuts):
            part = LinearState(NAMES)
            part.observe(features[rows], rewards[rows])
            parts.append(part)
        merged = LinearState(NAMES)
        for place in RANDOM.permutation(len(parts)):
            merged = parts[place].merge(merged)
        assert merged.as_dict() == whole.as_dict()
    assert whole.copy().version == whole.version
    assert whole.shown == 600


def test_a_late_reward_is_the_same_as_one_in_time() -> None:
    features, rewards = events()
    examination = RANDOM.uniform(0.2, 1, len(features))
    at_once, later = LinearState(NAMES), LinearState(NAMES)
    at_once.observe(features, rewards, examination)
    later.observe(features, np.zeros(len(rewards)), examination)
    clicked = np.flatnonzero(rewards)[::-1]
    assert later.version != at_once.version
    later.reward_late(features[clicked], rewards[clicked], examination[clicked])
    assert later.as_dict() == at_once.as_dict()


def test_examination_gives_what_a_seen_slot_earns() -> None:
    """Clicks at places that are looked at half as often must not halve what is thought of the product."""
    count = 40_000
    features = np.column_stack([np.ones(count), RANDOM.integers(0, 2, count), np.zeros((count, 3))])
    examination = np.where(features[:, 1] == 1, 0.4, 1.0)  # the better product stands where few look
    rewards = (RANDOM.random(count) < examination * (0.2 + 0.3 * features[:, 1])).astype(float)
    state, blind = LinearState(NAMES), LinearState(NAMES)
    state.observe(features, rewards, examination)
    blind.observe(features, rewards)
    np.testing.assert_allclose(state.posterior(1.0).mean[:2], [0.2, 0.3], atol=0.03)
    assert blind.posterior(1.0).mean[1] < 0.05


def test_saved_and_loaded(tmp_path) -> None:
    state = LinearState(NAMES)
    state.observe(*events())
    file = tmp_path / "state.json"
    state.save(file)
    loaded = LinearState.load(file)
    assert loaded.as_dict() == state.as_dict()
    loaded.observe(*events())
    assert loaded.version != state.version
    values = json.loads(file.read_text())
    for change in ({"shown": 3}, {"format": 9}, {"names": ["x"]}, {"gram": 1}, {"gram": [[0.5] * 5] * 5}):
        file.write_text(json.dumps(values | change))
        with pytest.raises(PolicyError, match="polic"):
            LinearState.load(file)
    file.write_text("\x80not json")
    with pytest.raises(PolicyError, match="cannot be read"):
        LinearState.load(file)
    with pytest.raises(PolicyError, match="cannot be read"):
        LinearState.load(tmp_path / "absent.json")


def test_refused() -> None:
    state = LinearState(NAMES)
    for bad in (np.full((2, 5), np.nan), np.full((2, 5), 17.0), np.zeros((2, 4))):
        with pytest.raises(PolicyError):
            state.observe(bad, np.zeros(2))
    with pytest.raises(PolicyError, match="rewards"):
        state.observe(np.zeros((2, 5)), np.array([0, np.inf]))
    assert state.shown == 0
    with pytest.raises(PolicyError, match="different features"):
        state.merge(LinearState(("a",)))
    with pytest.raises(PolicyError, match="distinct"):
        LinearState(("a", "a"))
