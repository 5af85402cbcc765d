"""Whether a paired difference is more than chance: a sign-flip test over queries, corrected for many tests.

Arrays in, numbers out. The query is what is flipped. NaN values (queries without a relevant product) are left out.
"""

from collections.abc import Sequence

import numpy as np

from fuserank.errors import EvaluationError


def paired_test(a: np.ndarray, b: np.ndarray, flips: int = 2000, seed: int = 0) -> float:
    """Two-sided p of "no difference" between two systems on the same queries. [Q], [Q] → p in (0, 1].

    If neither is better, each query's difference may as well have the other sign: p is the share of random signs whose
    mean is as far from 0, the signs seen among them, so that it is never 0 (Fisher's randomisation test; Smucker, Allan
    and Carterette, A Comparison of Statistical Significance Tests for Information Retrieval, 2007; Phipson and
    Smyth, 2010, for the added one). NaN below two queries.

    Raises:
        EvaluationError: different queries, or infinities.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise EvaluationError(f"paired values must come from the same queries, got {a.shape} and {b.shape}.")
    difference = a - b
    difference = difference[~np.isnan(difference)]
    if np.isinf(difference).any():
        raise EvaluationError("metric values must be finite.")
    if len(difference) < 2:
        return float("nan")
    moved = difference[difference != 0]  # a zero has no sign to flip
    random, seen = np.random.default_rng(seed), abs(float(moved.sum()))
    step = max(1, 8_000_000 // max(len(moved), 1))
    extreme = 0
    for start in range(0, flips, step):
        signs = random.integers(0, 2, size=(min(step, flips - start), len(moved)), dtype=np.int8)
        sums = 2.0 * (signs @ moved) - moved.sum()
        extreme += int((np.abs(sums) >= seen - 1e-9 * np.abs(moved).sum()).sum())
    return (extreme + 1) / (flips + 1)


def holm(values: Sequence[float]) -> list[float]:
    """p values so corrected that the chance of any false alarm among all of them stays below the level. NaN stays NaN.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    p = np.asarray(values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), np.nan)
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected.tolist()
