"""What every policy is: candidates' features in, slates with propensities out, learning in batches.

    policy.choose(features [B, K, F], seeds [B], size) → Slates     policy.observe(features [N, F], rewards [N])

Deterministic: the same state, features and seed give the same slate on every replica, whatever else is in the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fuserank.errors import PolicyError
from fuserank.feedback.policies.slates import (
    NONE,
    Chances,
    Slates,
    best,
    check,
    placed_share,
    shuffled,
    uniform_position,
    uniform_slate,
)
from fuserank.feedback.policies.state import LinearState, Posterior

EXPLORE, ACT, ESTIMATE = 0, 1, 2
"""Streams of random numbers of one request: whether and what to explore; what to show; what propensities come from."""


class SlatePolicy(ABC):
    """A linear model of reward and a rule that ranks by it, mixed with a uniform share."""

    kind: ClassVar[str]

    def __init__(
        self,
        state: LinearState,
        share: float = 0.05,
        ridge: float = 1.0,
        frozen: bool = False,
        prior: Mapping[str, float] | None = None,
    ):
        """
        Args:
            state: what was learnt so far; `observe` goes on from it.
            share: of the slates that are drawn uniformly at random, 0 … 1.
            ridge: precision of the prior on the weights.
            frozen: no exploration of any kind: every slate is the best by the model's mean.
            prior: weights of features before anything is learnt, 0 for those that are not named.

        Raises:
            PolicyError: a share outside 0 … 1 or a ridge ≤ 0.
        """
        if not 0 <= share <= 1 or not ridge > 0:
            raise PolicyError(f"a policy needs 0 ≤ share ≤ 1 and ridge > 0, got {share} and {ridge}.")
        self.state, self.share, self.ridge, self.frozen, self.prior = state, share, ridge, frozen, prior
        self._posterior: tuple[str, Posterior] | None = None

    @property
    def name(self) -> str:
        """`kind@version`, as impressions log it."""
        return f"{self.kind}@{self.state.version}"

    @property
    def posterior(self) -> Posterior:
        """Of the state as it is now; computed once for each version."""
        version = self.state.version
        if self._posterior is None or self._posterior[0] != version:
            self._posterior = (version, self.state.posterior(self.ridge, self.prior))
        return self._posterior[1]

    def observe(self, features: np.ndarray, rewards: np.ndarray, examination: np.ndarray | None = None) -> None:
        """Learn from slots that were shown; see LinearState.observe."""
        self.state.observe(features, rewards, examination)

    def choose(
        self,
        features: np.ndarray,
        seeds: np.ndarray,
        size: int,
        mask: np.ndarray | None = None,
        share: np.ndarray | float | None = None,
    ) -> Slates:
        """Answer B requests.

        Args:
            features: [B, K, F] of the candidates; seeds: [B] ≥ 0, one a request (a hash of its id, say).
            size: positions of a slate; mask: bool [B, K], False = no candidate.
            share: of this batch or of each request, in place of the policy's own (see exploration.py).

        Raises:
            PolicyError: shapes or values that make no sense.
        """
        features, candidates, shares = check(features, mask, size, self.share if share is None else share)
        if len(seeds) != len(features):
            raise PolicyError(f"one seed a request: got {len(seeds)} for {len(features)}.")
        shares = shares * (not self.frozen)
        size = min(size, features.shape[1])
        rows, samples = self._rankings(features, candidates, size, seeds)
        explored = np.zeros(len(features), bool)
        for request, seed in enumerate(seeds):
            random = np.random.default_rng([int(seed), EXPLORE])
            if random.random() < shares[request]:
                explored[request], rows[request] = True, shuffled(candidates[request], size, random)
        agree = samples == rows[:, None]
        positions, slates = agree.mean(1), agree.all(2).mean(1)
        count = samples.shape[1]
        mixed = shares[:, None] * uniform_position(candidates)[:, None] + (1 - shares)[:, None] * positions
        return Slates(
            rows=rows,
            propensities=np.where(rows == NONE, np.nan, mixed),
            slate_propensity=shares * uniform_slate(candidates, size) + (1 - shares) * slates,
            errors=(1 - shares)[:, None] * self._error(positions, count),
            slate_error=(1 - shares) * self._error(slates, count),
            explored=explored,
        )

    def chances(
        self,
        features: np.ndarray,
        size: int,
        mask: np.ndarray | None = None,
        share: np.ndarray | float | None = None,
        seeds: np.ndarray | None = None,
    ) -> Chances:
        """Chance of every candidate at every position, for evaluating this policy on another's log; as `choose`.

        Args:
            seeds: [B], of what is drawn by Monte Carlo; 0 … B−1 where absent.
        """
        features, candidates, shares = check(features, mask, size, self.share if share is None else share)
        shares = shares * (not self.frozen)
        size = min(size, features.shape[1])
        _, samples = self._rankings(features, candidates, size, np.arange(len(features)) if seeds is None else seeds)
        count = samples.shape[1]
        own = placed_share(samples, candidates.shape[1])
        filled = (samples[:, 0] != NONE)[:, None, :] & candidates[..., None]
        mix, rest = shares[:, None, None], (1 - shares)[:, None, None]
        return Chances(
            values=rest * own + mix * uniform_position(candidates)[:, None, None] * filled,
            errors=rest * self._error(own, count) * filled,
        )

    @abstractmethod
    def _rankings(
        self, features: np.ndarray, mask: np.ndarray, size: int, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the policy itself shows, int64 [B, S], and rankings drawn from the same distribution independently of
        it, int64 [B, M, S]; M = 1 where there is nothing random."""

    def _by_score(self, scores: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        ranked = best(scores, mask, size)
        return ranked.copy(), ranked[:, None]

    @staticmethod
    def _error(share: np.ndarray, count: int) -> np.ndarray:
        """Standard error of a share seen in `count` draws; two draws more, one of each kind, so that it is never 0."""
        if count == 1:
            return np.zeros_like(share)
        nearer = (share * count + 1) / (count + 2)
        return np.sqrt(nearer * (1 - nearer) / count)
