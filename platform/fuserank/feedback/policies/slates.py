"""Slates with their propensities: a ranking, shown as it is or, for a uniform share of the answers, drawn at random.

The random share is drawn a slate at a time: with chance ε all positions are a random ordered draw from the candidates.
So the chance of any candidate at any position is at least ε/K, and everything has a closed form. Exploring position by
position would be gentler on one answer, but there the best candidate reaches the last of S positions with chance about
ε^S only, and a log in which that happened says nothing about policies that would put it there.
"""

from dataclasses import dataclass

import numpy as np

from fuserank.errors import PolicyError

NONE = -1
"""Fills slates of requests with fewer candidates than positions."""


@dataclass(frozen=True)
class Slates:
    """What a policy answers to B requests, and the chances it had of answering so."""

    rows: np.ndarray  # int64 [B, S] places in the list of candidates, NONE where there are no more
    propensities: np.ndarray  # [B, S] chance of this candidate at this position, whatever stands around it; NaN if none
    slate_propensity: np.ndarray  # [B] chance of this whole slate
    errors: np.ndarray  # [B, S] standard error of the propensities; 0: exact
    slate_error: np.ndarray  # [B]
    explored: np.ndarray  # bool [B]: drawn at random


@dataclass(frozen=True)
class Chances:
    """Chance of each candidate at each position, given the candidates of a request."""

    values: np.ndarray  # [B, K, S]; sums to 1 over K at positions that are filled
    errors: np.ndarray  # [B, K, S] standard errors; 0: exact


def check(
    features: np.ndarray, mask: np.ndarray | None, size: int, share: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(float64 features [B, K, F], mask [B, K], share [B]), validated.

    Raises:
        PolicyError: a shape or value that makes no sense, or a request without a candidate.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 3:
        raise PolicyError(f"features must be [B, K, F], got {features.shape}.")
    mask = np.ones(features.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    if mask.shape != features.shape[:2] or not mask.any(1).all():
        raise PolicyError("every request needs at least one candidate, and a mask [B, K].")
    if not np.isfinite(features[mask]).all():
        raise PolicyError("features of candidates must be finite.", "Fill unknown ones before they reach the policy.")
    shares = np.broadcast_to(np.asarray(share, np.float64), features.shape[:1])
    if size < 1 or not ((shares >= 0) & (shares <= 1)).all():
        raise PolicyError(f"a slate needs at least one position and 0 ≤ share ≤ 1, got {size} and {share}.")
    return np.where(mask[..., None], features, 0.0), mask, shares


def best(scores: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """The highest scores first, ties in the order of the candidates. [..., K] → int64 [..., min(K, S)]."""
    hidden = np.where(mask, -scores, np.inf)
    order = np.argsort(hidden, axis=-1, kind="stable")[..., :size]
    filled = np.arange(order.shape[-1]) < mask.sum(-1)[..., None]
    return np.where(filled, order, NONE)


def shuffled(mask: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """One request's ordered uniform draw without replacement. [K] → [min(K, S)]."""
    return best(random.random(len(mask)), mask, size)


def uniform_position(mask: np.ndarray) -> np.ndarray:
    """Chance of a candidate at a position under the uniform draw, 1/K. [B, K] → [B]."""
    return 1 / mask.sum(1)


def uniform_slate(mask: np.ndarray, size: int) -> np.ndarray:
    """Chance of one ordered slate under the uniform draw, (K−S)!/K!. [B, K] → [B]."""
    left = mask.sum(1)[:, None] - np.arange(size)
    return (1 / np.where(left > 0, left, 1)).prod(1)


def placed_share(rankings: np.ndarray, candidates: int) -> np.ndarray:
    """Share of the rankings that put each candidate at each position. int [B, M, S] → [B, K, S]."""
    counts = np.zeros((rankings.shape[0], candidates + 1, rankings.shape[2]))  # NONE counts in the last row
    batch, position = np.arange(len(rankings))[:, None, None], np.arange(rankings.shape[2])
    np.add.at(counts, (batch, rankings, position), 1 / rankings.shape[1])
    return counts[:, :candidates]


def at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What [B, K, S] holds for the candidates of slates int [B, S]; NaN for NONE."""
    taken = np.take_along_axis(values, np.maximum(rows, 0)[:, None, :], axis=1)[:, 0]
    return np.where(rows == NONE, np.nan, taken)
