"""A linear model of rewards for the direct method and doubly robust estimation, fitted crosswise on the log itself.

N answers · S positions · F features.
"""

from dataclasses import dataclass

import numpy as np

from fuserank.errors import PolicyError


@dataclass(frozen=True)
class Rewards:
    """What a model that never saw an answer's own rewards says of it."""

    predicted: np.ndarray  # [N, S] of what was shown
    expected: np.ndarray  # [N, S] of what the evaluated policy would show
    influence: np.ndarray  # [N] of each answer, through the fitted weights, on the mean of `expected`


def fit_rewards(
    shown: np.ndarray, rewards: np.ndarray, intended: np.ndarray, ridge: float = 1.0, folds: int = 5, seed: int = 0
) -> Rewards:
    """Ridge regression, each fold predicted by a fit on the others.

    Args:
        shown: [N, S, F] features of what was shown; rewards: [N, S].
        intended: [N, S, F] features of what the evaluated policy shows there on average, Σ_a π(a) x_a. Scale both by
            the chance that a position is looked at, where it matters.

    Raises:
        PolicyError: shapes differ, or fewer answers than folds.
    """
    if shown.ndim != 3 or shown.shape != intended.shape or rewards.shape != shown.shape[:2] or folds < 2:
        raise PolicyError(f"shapes do not fit: {shown.shape}, {rewards.shape}, {intended.shape}; folds {folds}.")
    if len(shown) < folds:
        raise PolicyError(f"{len(shown)} answers are too few for {folds} folds.", "Collect more feedback first.")
    fold = np.random.default_rng(seed).permutation(len(shown)) % folds
    width = shown.shape[2]
    prior, parts = ridge * np.eye(width), [shown[fold == f].reshape(-1, width) for f in range(folds)]
    grams = np.stack([part.T @ part for part in parts])
    sums = np.stack([part.T @ rewards[fold == f].ravel() for f, part in enumerate(parts)])
    thetas = np.stack([np.linalg.solve(grams.sum(0) - grams[f] + prior, sums.sum(0) - sums[f]) for f in range(folds)])[
        fold
    ]  # [N, F]: of the fold each answer lies in
    predicted = np.einsum("nsf,nf->ns", shown, thetas)
    direction = np.linalg.solve(grams.sum(0) + prior, intended.mean((0, 1)))
    influence = len(shown) * np.einsum("nsf,f,ns->n", shown, direction, rewards - predicted)
    return Rewards(predicted, np.einsum("nsf,nf->ns", intended, thetas), influence)
