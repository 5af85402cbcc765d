"""ε-greedy: the best by the estimated reward, and a uniform share. Propensities are exact."""

import numpy as np

from fuserank.feedback.policies.base import SlatePolicy


class EpsilonGreedy(SlatePolicy):
    """Ranks by ridge regression's mean θᵀx."""

    kind = "epsilon_greedy"

    def _rankings(
        self, features: np.ndarray, mask: np.ndarray, size: int, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._by_score(features @ self.posterior.mean, mask, size)
