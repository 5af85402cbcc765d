"""How good probabilities are: their order (AUC), their cost (log loss) and whether they mean what they say.

N events · all arrays are one-dimensional; `happened` is 1 or 0.
"""

import numpy as np

from fuserank.errors import EvaluationError

BINS = 10
_LEAST = 1e-12


def auc(chance: np.ndarray, happened: np.ndarray) -> float:
    """Chance that something that happened is ranked above something that did not, ties counting a half (Mann & Whitney
    1947); NaN where all happened, or nothing did."""
    chance, happened = _checked(chance, happened)
    _, place, counts = np.unique(chance, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    yes = happened > 0
    hits, misses = int(yes.sum()), int((~yes).sum())
    return float((rank[yes].sum() - hits * (hits + 1) / 2) / (hits * misses)) if hits and misses else float("nan")


def log_loss(chance: np.ndarray, happened: np.ndarray) -> float:
    """Mean negative log likelihood, nats."""
    chance, happened = _checked(chance, happened)
    kept = np.clip(chance, _LEAST, 1 - _LEAST)
    return float(-np.mean(happened * np.log(kept) + (1 - happened) * np.log1p(-kept)))


def reliability(
    chance: np.ndarray, happened: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of nearly equal size by rising chance: mean chance, share that happened and size of each, [≤ bins]."""
    chance, happened = _checked(chance, happened)
    parts = [part for part in np.array_split(np.argsort(chance, kind="stable"), bins) if len(part)]
    means = [np.array([values[part].mean() for part in parts]) for values in (chance, happened)]
    return means[0], means[1], np.array([len(part) for part in parts])


def calibration_error(chance: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: how far the bins' shares lie from their chances, by size (Naeini et al. 2015,
    https://doi.org/10.1609/aaai.v29i1.9602, with bins of equal size)."""
    mean, share, size = reliability(chance, happened, bins)
    return float(np.sum(size * np.abs(share - mean)) / size.sum())


def _checked(chance: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chance, happened = np.asarray(chance, np.float64), np.asarray(happened, np.float64)
    if chance.shape != happened.shape or chance.ndim != 1 or not len(chance):
        raise EvaluationError(f"one probability an event, got {chance.shape} for {happened.shape}.")
    if not ((chance >= 0) & (chance <= 1)).all() or not np.isin(happened, (0, 1)).all():
        raise EvaluationError("probabilities lie in 0 … 1 and what happened is 1 or 0.")
    return chance, happened
