"""Confidence intervals of means and of ratios of means: BCa by the Poisson bootstrap, and empirical Bernstein.

Arrays in, numbers out. N answers · M estimators.
"""

from dataclasses import asdict, dataclass

import numpy as np

from fuserank.evaluation.intervals import NORMAL, Interval


@dataclass(frozen=True)
class Bernstein:
    """An empirical Bernstein interval; `guaranteed` where the range it rests on was known and not read off the data."""

    low: float
    high: float
    guaranteed: bool

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def bootstrap(
    numerators: np.ndarray, denominators: np.ndarray, level: float, samples: int, seed: int
) -> list[Interval]:
    """BCa intervals (Efron 1987) of mean(numerator)/mean(denominator), all columns on the same resamples.

    Answers are drawn Poisson(1) times each, so that a resample is a product of matrices. The acceleration comes from
    the influence of each answer on the ratio. A column whose denominators sum to 0 gives NaN.

    Args:
        numerators, denominators: [N, M].
    """
    count, random = len(numerators), np.random.default_rng(seed)
    step = max(1, 4_000_000 // count)
    parts = []
    for start in range(0, samples, step):
        times = random.poisson(1.0, size=(min(step, samples - start), count)).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((times @ numerators) / (times @ denominators))
    drawn = np.concatenate(parts)
    return [_bca(numerators[:, m], denominators[:, m], drawn[:, m], level) for m in range(numerators.shape[1])]


def _bca(numerator: np.ndarray, denominator: np.ndarray, drawn: np.ndarray, level: float) -> Interval:
    count, drawn = len(numerator), drawn[np.isfinite(drawn)]
    if count < 2 or denominator.sum() == 0 or not len(drawn):
        total = denominator.sum()
        return Interval(float(numerator.sum() / total) if total else np.nan, np.nan, np.nan, count)
    mean = float(numerator.mean() / denominator.mean())
    influence = numerator - mean * denominator
    spread = float((influence**2).sum())
    if spread <= 1e-24 * count:
        return Interval(mean, mean, mean, count)
    below = ((drawn < mean).sum() + 0.5 * (drawn == mean).sum()) / len(drawn)
    bias = NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn))))
    acceleration = float((influence**3).sum()) / (6 * spread**1.5)
    points = [bias + NORMAL.inv_cdf((1 + side * level) / 2) for side in (-1, 1)]
    tails = [NORMAL.cdf(bias + point / (1 - acceleration * point)) for point in points]
    low, high = np.quantile(drawn, tails)
    return Interval(mean, float(low), float(high), count)


def half_width(variance: float | np.ndarray, width: float, count: int, level: float) -> float | np.ndarray:
    """Half of a two-sided empirical Bernstein interval (Maurer & Pontil 2009, https://arxiv.org/abs/0907.3740, th. 4).

    √(2 V ln(4/δ) / n) + 7 R ln(4/δ) / (3 (n − 1)), each side at δ/2, δ = 1 − level.

    Args:
        variance: of the sample, n − 1 in the denominator; width: R, of the range of one value; count: n ≥ 2.
    """
    log = np.log(4 / (1 - level))
    return np.sqrt(2 * variance * log / count) + 7 * width * log / (3 * (count - 1))


def bernstein(
    values: np.ndarray, value_range: tuple[float, float], within: tuple[float, float], level: float, guaranteed: bool
) -> Bernstein:
    """Interval of the mean of independent values [N] within `value_range`, cut to where the mean must lie."""
    if len(values) < 2:
        return Bernstein(*within, guaranteed)
    half = float(half_width(values.var(ddof=1), value_range[1] - value_range[0], len(values), level))
    return _cut(float(values.mean()) - half, float(values.mean()) + half, within, guaranteed)


def bernstein_ratio(
    numerator: np.ndarray,
    weights: np.ndarray,
    largest: float,
    within: tuple[float, float],
    level: float,
    guaranteed: bool,
) -> Bernstein:
    """Interval of SNIPS: every value θ whose w·(r − θ), of mean 0 at the truth, is not refuted by its own interval.

    Args:
        numerator: [N] w·r; weights: [N] w ≤ largest; within: the range of rewards.
    """
    low, high = within
    if len(weights) < 2 or weights.sum() == 0:
        return Bernstein(low, high, guaranteed)
    spread = np.cov(numerator, weights)
    (mean, mass), width = (numerator.mean(), weights.mean()), largest * (high - low)

    def refuted(value: float) -> bool:
        variance = max(spread[0, 0] - 2 * value * spread[0, 1] + value**2 * spread[1, 1], 0.0)
        return abs(mean - value * mass) > half_width(variance, width, len(weights), level)

    ends = []
    for edge in (low, high):
        inside, outside = float(np.clip(mean / mass, low, high)), edge
        if refuted(edge):
            for _ in range(60):
                middle = (inside + outside) / 2
                inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
        ends.append(outside)
    return Bernstein(float(ends[0]), float(ends[1]), guaranteed)


def _cut(low: float, high: float, within: tuple[float, float], guaranteed: bool) -> Bernstein:
    return Bernstein(max(low, within[0]), min(high, within[1]), guaranteed)
