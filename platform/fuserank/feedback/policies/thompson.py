"""Linear Thompson sampling (Agrawal & Goyal 2013, https://arxiv.org/abs/1209.3352) over slates.

Each answer ranks by weights drawn from the posterior. The chance of a ranking has no closed form: it is estimated from
further draws, independent of the one shown, and logged with its standard error. The uniform share is exact, so the
estimate is never below its floor.
"""

from collections.abc import Mapping

import numpy as np

from fuserank.errors import PolicyError
from fuserank.feedback.policies.base import ACT, ESTIMATE, SlatePolicy
from fuserank.feedback.policies.slates import best
from fuserank.feedback.policies.state import LinearState


class Thompson(SlatePolicy):
    """Ranks by θ̃ᵀx, θ̃ ~ N(θ, noise² V⁻¹)."""

    kind = "thompson"

    def __init__(
        self,
        state: LinearState,
        share: float = 0.05,
        ridge: float = 1.0,
        frozen: bool = False,
        prior: Mapping[str, float] | None = None,
        noise: float = 0.3,
        samples: int = 256,
    ):
        """
        Args:
            noise: standard deviation of a reward around its mean (clicks: √(p(1−p)), about .3 at p = .1).
            samples: ≥ 2, draws that a propensity is estimated from. The rest as SlatePolicy.
        """
        super().__init__(state, share, ridge, frozen, prior)
        if not noise >= 0 or samples < 2:
            raise PolicyError(f"Thompson sampling needs noise ≥ 0 and samples ≥ 2, got {noise} and {samples}.")
        self.noise, self.samples = noise, samples

    def _rankings(
        self, features: np.ndarray, mask: np.ndarray, size: int, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        posterior = self.posterior
        if self.frozen:
            return self._by_score(features @ posterior.mean, mask, size)
        width = features.shape[2]
        shown = np.empty((len(features), size), np.int64)
        samples = np.empty((len(features), self.samples, size), np.int64)
        for request, seed in enumerate(seeds):
            act, estimate = (np.random.default_rng([int(seed), stream]) for stream in (ACT, ESTIMATE))
            drawn = posterior.draws(act.standard_normal(width), self.noise)
            shown[request] = best(features[request] @ drawn, mask[request], size)
            draws = posterior.draws(estimate.standard_normal((self.samples, width)), self.noise)
            samples[request] = best(draws @ features[request].T, mask[request], size)
        return shown, samples
