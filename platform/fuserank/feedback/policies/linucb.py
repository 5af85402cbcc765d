"""LinUCB (Li et al. 2010, https://arxiv.org/abs/1003.0146), one model for all products, over slates.

Given the state it is deterministic; with the uniform share its propensities are exact.
"""

from collections.abc import Mapping

import numpy as np

from fuserank.errors import PolicyError
from fuserank.feedback.policies.base import SlatePolicy
from fuserank.feedback.policies.state import LinearState


class LinUCB(SlatePolicy):
    """Ranks by the upper confidence bound θᵀx + α √(xᵀ V⁻¹ x), V = ridge·I + Σ x xᵀ."""

    kind = "linucb"

    def __init__(
        self,
        state: LinearState,
        share: float = 0.05,
        ridge: float = 1.0,
        frozen: bool = False,
        prior: Mapping[str, float] | None = None,
        alpha: float = 0.5,
    ):
        """
        Args:
            alpha: ≥ 0, how much doubt counts for a candidate; the rest as SlatePolicy.
        """
        super().__init__(state, share, ridge, frozen, prior)
        if not alpha >= 0:
            raise PolicyError(f"LinUCB needs alpha ≥ 0, got {alpha}.")
        self.alpha = alpha

    def _rankings(
        self, features: np.ndarray, mask: np.ndarray, size: int, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        posterior = self.posterior
        alpha = 0.0 if self.frozen else self.alpha
        return self._by_score(features @ posterior.mean + alpha * posterior.widths(features), mask, size)
