"""A simulated shop whose truth is known exactly: contexts, three positions, and policies that serve or are judged."""

from dataclasses import dataclass

import numpy as np

from fuserank.feedback.estimators import Log, weights_of
from fuserank.feedback.policies.base import SlatePolicy
from fuserank.feedback.policies.build import build_policy
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.rewards import fit_rewards

CONTEXTS, CANDIDATES, POSITIONS, WIDTH = 200, 6, 3, 4
NAMES = ("bias", "a", "b", "c")
EXAMINED = np.array([1.0, 0.7, 0.5])
THETA = np.array([0.05, 0.3, 0.2, 0.1])


@dataclass
class Shop:
    """Chances of every candidate at every position, by policy, and what each earns there."""

    features: np.ndarray  # [C, K, F]
    rewards: np.ndarray  # [C, K, S]: chance of a click
    serving: SlatePolicy
    chances: dict[str, np.ndarray]  # [C, K, S]

    def true_value(self, policy: str) -> float:
        return float((self.chances[policy] * self.rewards).sum(1).mean())

    def serve(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Requests, slates and clicks of the serving policy: [N], [N, S], [N, S]."""
        contexts = random.integers(0, CONTEXTS, count)
        greedy = self.serving.choose(self.features, np.arange(CONTEXTS), POSITIONS, share=0.0).rows
        explored = random.random(count) < self.serving.share
        shuffled = random.random((count, CANDIDATES)).argsort(1)[:, :POSITIONS]
        rows = np.where(explored[:, None], shuffled, greedy[contexts])
        chance = self.rewards[contexts[:, None], rows, np.arange(POSITIONS)]
        return contexts, rows, (random.random(rows.shape) < chance).astype(float)

    def log(self, policy: str, contexts: np.ndarray, rows: np.ndarray, clicks: np.ndarray) -> Log:
        """What the estimators see of it."""
        where = (contexts[:, None], rows, np.arange(POSITIONS))
        scaled = self.features[contexts][:, :, None] * EXAMINED[:, None]  # [N, K, S, F]
        shown = np.take_along_axis(scaled, rows[:, None, :, None], axis=1)[:, 0]
        intended = np.einsum("nks,nksf->nsf", self.chances[policy][contexts], scaled)
        model = fit_rewards(shown, clicks, intended)
        weights = weights_of(self.chances[policy][where], self.chances["serving"][where])
        largest = CANDIDATES / self.serving.share
        return Log(clicks, weights, model.predicted, model.expected, model.influence, largest)


def make_shop(seed: int = 0, share: float = 0.3) -> Shop:
    random = np.random.default_rng(seed)
    features = np.concatenate(
        [np.ones((CONTEXTS, CANDIDATES, 1)), random.random((CONTEXTS, CANDIDATES, WIDTH - 1))], axis=2
    )
    rewards = (features @ THETA)[..., None] * EXAMINED

    def learnt(slots: int, tilt: np.ndarray) -> LinearState:
        state, x = LinearState(NAMES), features.reshape(-1, WIDTH)[random.integers(0, CONTEXTS * CANDIDATES, slots)]
        state.observe(x, (random.random(slots) < np.clip(x @ (THETA * tilt), 0, 1)).astype(float))
        return state

    serving = build_policy("epsilon_greedy", learnt(2000, np.array([1, 1.5, 0.2, 1])), share=share)
    judged = {
        "serving": serving,
        "uniform": build_policy("epsilon_greedy", LinearState(NAMES), share=1.0),
        "linucb": build_policy("linucb", learnt(2000, np.array([1, 0.3, 1.5, 1])), share=0.1),
        "thompson": build_policy("thompson", learnt(300, np.ones(4)), share=0.1, samples=500),
        "best": build_policy("epsilon_greedy", learnt(20_000, np.ones(4)), share=0.02),
    }
    chances = {name: policy.chances(features, POSITIONS).values for name, policy in judged.items()}
    return Shop(features, rewards, serving, chances)
