"""Off-policy estimation: what another policy would have earned, from a log of one that was served.

    estimate(Log(rewards, weights, …)) → {"ips": Estimate, "clipped_ips": …, "snips": …, "dm": …, "dr": …, …}

The unit is one answer: N answers of S positions each, and a value is a reward a position shown. A weight is the chance
that the evaluated policy would have put the same candidate at the same position over the chance that the serving policy
did, which is right where a reward depends on candidate and position but not on its neighbours (the item-position model
of Li et al. 2018, https://arxiv.org/abs/1804.10488). S = 1 is the plain contextual bandit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuserank.errors import PolicyError
from fuserank.evaluation.intervals import Interval
from fuserank.feedback.bounds import Bernstein, bernstein, bernstein_ratio, bootstrap
from fuserank.feedback.support import disagreement, support

METHODS = ("ips", "clipped_ips", "snips", "dm", "dr", "switch_dr")
MODELLED = ("dm", "dr", "switch_dr")


@dataclass(frozen=True)
class Log:
    """What was served and earned, and how another policy would have chosen.

    Args:
        rewards: [N, S], within `reward_range`. weights: [N, S] ≥ 0, see `weights_of`.
        predicted: [N, S] a model's reward of what was shown; expected: [N, S] of what the evaluated policy would show
            at that position, Σ_a π(a) q(a). Both or none; without them dm, dr and switch_dr are left out.
        influence: [N] how much each answer moves the mean of `expected` through the model that was fitted on it
            (rewards.py); without it the interval of dm holds the spread of the requests only.
        largest: the largest weight that the serving policy's floor allows, for empirical Bernstein bounds; where absent
            the largest seen, and the bounds are then no guarantee.
    """

    rewards: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray | None = None
    expected: np.ndarray | None = None
    influence: np.ndarray | None = None
    largest: float | None = None
    reward_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        shape = np.shape(self.rewards)
        given = [v for v in (self.predicted, self.expected) if v is not None]
        if (
            len(shape) != 2
            or not shape[0]
            or len(given) == 1
            or any(np.shape(v) != shape for v in (self.weights, *given))
        ):
            raise PolicyError(
                "a log needs rewards and weights [N, S], N ≥ 1, and both or none of predicted and expected."
            )
        if self.influence is not None and np.shape(self.influence) != shape[:1]:
            raise PolicyError(f"influence must be [N], got {np.shape(self.influence)}.")
        if not all(np.isfinite(v).all() for v in (self.rewards, self.weights, *given)) or (self.weights < 0).any():
            raise PolicyError("rewards, weights and predictions must be finite, weights not negative.")
        low, high = self.reward_range
        if not low < high or self.rewards.min() < low or self.rewards.max() > high:
            raise PolicyError(f"rewards must lie within reward_range {self.reward_range}.")
        if self.largest is not None and self.weights.max() > self.largest * (1 + 1e-9):
            raise PolicyError(f"a weight of {self.weights.max():g} exceeds the largest possible, {self.largest:g}.")


@dataclass(frozen=True)
class Estimate:
    """One estimator's answer."""

    value: float
    bootstrap: Interval  # BCa, answers resampled
    bernstein: Bernstein  # holds at any N, and is wide
    effective: float  # answers of the evaluated policy that the log is worth
    warnings: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        """Nothing speaks against reading the intervals as they are."""
        return not self.warnings

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "value": self.value,
            "bootstrap": self.bootstrap.as_dict(),
            "bernstein": self.bernstein.as_dict(),
            "effective": self.effective,
            "reliable": self.reliable,
            "warnings": list(self.warnings),
        }


def weights_of(evaluated: np.ndarray, logged: np.ndarray) -> np.ndarray:
    """Chances of what was shown under the evaluated policy over those under the serving one. [N, S], [N, S] → [N, S].

    Raises:
        PolicyError: a logged propensity outside (0, 1], or a chance outside [0, 1].
    """
    evaluated, logged = np.asarray(evaluated, np.float64), np.asarray(logged, np.float64)
    if not ((logged > 0) & (logged <= 1 + 1e-9)).all():
        raise PolicyError(
            "logged propensities must lie in (0, 1].", "Leave out answers that were logged without a propensity."
        )
    if not ((evaluated >= 0) & (evaluated <= 1 + 1e-9)).all():
        raise PolicyError("chances of the evaluated policy must lie in [0, 1].")
    return evaluated / logged


def estimate(
    log: Log,
    methods: Sequence[str] | None = None,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    clip: float | None = None,
    switch: float | None = None,
) -> dict[str, Estimate]:
    """Every estimator on one log, resampled together.

    - ips: mean of w·r (Horvitz & Thompson 1952). clipped_ips: w no more than `clip`, by default √N (Ionides 2008).
    - snips: Σ w·r / Σ w (Swaminathan & Joachims 2015).
    - dm: the model's word, mean of `expected`.
    - dr: expected + w·(r − predicted) (Dudík et al. 2011, https://arxiv.org/abs/1103.4601).
    - switch_dr: the same where w ≤ `switch`, by default √N; the model alone elsewhere (Wang et al. 2017,
      https://arxiv.org/abs/1612.01205).

    Args:
        methods: of METHODS; all that the log allows where absent.
        level: of both intervals; samples: of the bootstrap.

    Raises:
        PolicyError: an unknown method, or one whose model is not there.
    """
    modelled = log.expected is not None
    methods = [m for m in METHODS if modelled or m not in MODELLED] if methods is None else methods
    for method in methods:
        if method not in METHODS or (method in MODELLED and not modelled):
            raise PolicyError(f"no estimator {method!r} on this log.", f"Choose from {', '.join(METHODS)}.")
    root = float(np.sqrt(len(log.rewards)))
    limits = {"clipped_ips": clip or root, "switch_dr": switch or root}
    used = {method: _used(log.weights, method, limits.get(method, np.inf)) for method in methods}
    terms = np.stack([_terms(log, method, used[method]) for method in methods], axis=1)
    per = np.stack([used[m].mean(1) if m == "snips" else np.ones(len(terms)) for m in methods], axis=1)
    intervals = dict(zip(methods, bootstrap(terms, per, level, samples, seed), strict=True))
    found = {}
    for place, method in enumerate(methods):
        held = support(log.weights, used[method], log.rewards)
        warnings = held.warnings()
        if method == "dm" and "dr" in intervals:
            warnings += disagreement(intervals["dm"], intervals["dr"])
        bounds = _bernstein(log, method, terms[:, place], used[method], limits.get(method, np.inf), level)
        found[method] = Estimate(intervals[method].mean, intervals[method], bounds, held.effective, warnings)
    return found


def difference(
    candidate: Log, incumbent: Log, method: str, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> Interval:
    """How much more the candidate would have earned on the same answers, paired: what both do alike cancels.

    snips, a ratio, enters by what each answer moves it (its influence function), so that the mean is its value.

    Args:
        candidate, incumbent: of the same answers in the same order. method, level, samples: as of `estimate`.

    Raises:
        PolicyError: logs of other answers, or as `estimate`.
    """
    if candidate.rewards.shape != incumbent.rewards.shape or (candidate.rewards != incumbent.rewards).any():
        raise PolicyError("a paired difference needs two policies' logs of the same answers.")
    moved = _moved(candidate, method) - _moved(incumbent, method)
    return bootstrap(moved[:, None], np.ones((len(moved), 1)), level, samples, seed)[0]


def _moved(log: Log, method: str) -> np.ndarray:
    """Of each answer, what it adds to the estimate, whose value is the mean. [N]"""
    if method not in METHODS or (method in MODELLED and log.expected is None):
        raise PolicyError(f"no estimator {method!r} on this log.", f"Choose from {', '.join(METHODS)}.")
    limit = float(np.sqrt(len(log.rewards))) if method in ("clipped_ips", "switch_dr") else np.inf
    used = _used(log.weights, method, limit)
    terms = _terms(log, method, used)
    if method != "snips":
        return terms
    per = used.mean(1)
    if not per.sum():
        return np.full(len(per), np.nan)
    value = terms.mean() / per.mean()
    return value + (terms - value * per) / per.mean()


def _used(weights: np.ndarray, method: str, limit: float) -> np.ndarray:
    """The weights an estimator works with. [N, S] → [N, S]."""
    if method == "clipped_ips":
        return np.minimum(weights, limit)
    return np.where(weights <= limit, weights, 0.0) if method == "switch_dr" else weights


def _terms(log: Log, method: str, used: np.ndarray) -> np.ndarray:
    """What each answer adds; the mean is the estimate (for snips the numerator). [N]"""
    if log.expected is None or log.predicted is None or method not in MODELLED:
        return (used * log.rewards).mean(1)
    if method == "dm":
        influence = 0.0 if log.influence is None else log.influence - log.influence.mean()
        return log.expected.mean(1) + influence
    return (log.expected + used * (log.rewards - log.predicted)).mean(1)


def _bernstein(log: Log, method: str, terms: np.ndarray, used: np.ndarray, limit: float, level: float) -> Bernstein:
    low, high = log.reward_range
    known, largest = log.largest is not None, min(log.largest or float(log.weights.max()), limit)
    if method == "snips":
        return bernstein_ratio(terms, used.mean(1), largest, log.reward_range, level, known)
    if method == "dm":  # of the model's values no more is known than what they are
        return bernstein(terms, (float(terms.min()), float(terms.max())), log.reward_range, level, False)
    spans = (largest * min(low, 0.0), largest * max(high, 0.0))
    if method in MODELLED and log.expected is not None and log.predicted is not None:
        spans = (
            float(log.expected.min()) + largest * min(low - float(log.predicted.max()), 0.0),
            float(log.expected.max()) + largest * max(high - float(log.predicted.min()), 0.0),
        )
        known = False  # the model's range is read off the data
    return bernstein(terms, spans, log.reward_range, level, known)
