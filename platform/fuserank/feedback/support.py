"""How well a log supports an estimate: effective sample size, and warnings in words. Arrays in, words out."""

from dataclasses import dataclass

import numpy as np

from fuserank.evaluation.intervals import Interval

EFFECTIVE = 100.0
"""Fewer effective answers than this, and an interval is not to be trusted."""
CONCENTRATED = 0.05  # of all weight on one answer
REWARDED = 10.0  # effective rewarded answers
CUT = 0.05  # of the weight lost to clipping or switching
DOUBT = 1.6  # half widths of a 95 % interval: about three standard errors
SIGMAS, SLACK = 4.0, 0.02  # how far the mean weight may lie from 1


@dataclass(frozen=True)
class Support:
    """Of the weights of N answers."""

    effective: float  # (Σw)² / Σw² (Kish 1965)
    mean: float  # 1 if the propensities are right and nothing lacks support
    error: float  # standard error of the mean
    largest_share: float  # of all weight, on one answer
    rewarded: float  # (Σ|wr|)² / Σ(wr)²
    cut: float  # share of the weight that clipping or switching took away

    def warnings(self) -> tuple[str, ...]:
        """What speaks against trusting an estimate; empty if nothing does."""
        found = []
        if self.effective < EFFECTIVE:
            found.append(f"few effective answers: {self.effective:.0f}, at least {EFFECTIVE:.0f} wanted")
        if self.largest_share > CONCENTRATED:
            found.append(f"weights too large: one answer carries {self.largest_share:.0%} of all weight")
        if self.cut > CUT:
            found.append(f"weights too large: {self.cut:.0%} of the weight is cut off")
        if abs(self.mean - 1) > SIGMAS * self.error + SLACK:
            found.append(
                f"support missing or propensities wrong: weights average {self.mean:.2f} ± {self.error:.2f}, not 1"
            )
        if self.rewarded < REWARDED:
            found.append(f"few rewards: the estimate rests on {self.rewarded:.1f} rewarded answers")
        return tuple(found)


def effective_size(weights: np.ndarray) -> float:
    """(Σw)² / Σw²; 0 for weights that are all 0. [N] → answers."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def support(weights: np.ndarray, used: np.ndarray, rewards: np.ndarray) -> Support:
    """
    Args:
        weights: [N, S] as they are; used: [N, S] after clipping or switching; rewards: [N, S].
    """
    whole, kept = weights.mean(1), used.mean(1)
    count, mass = len(whole), float(whole.sum())
    return Support(
        effective=effective_size(kept),
        mean=float(whole.mean()),
        error=float(whole.std(ddof=1) / np.sqrt(count)) if count > 1 else np.inf,
        largest_share=float(kept.max() / kept.sum()) if kept.any() else 1.0,
        rewarded=effective_size(np.abs((used * rewards).mean(1))),
        cut=1 - float(kept.sum()) / mass if mass else 0.0,
    )


def disagreement(model: Interval, corrected: Interval) -> tuple[str, ...]:
    """A warning if what the model says is far outside what observed rewards make of it: 1.6 times its 95 % interval."""
    low, high = (corrected.mean + DOUBT * (end - corrected.mean) for end in (corrected.low, corrected.high))
    if low <= model.mean <= high:
        return ()
    return (f"the reward model says {model.mean:.4g}, observed rewards {corrected.low:.4g} … {corrected.high:.4g}",)
