"""Answers that were served, as an estimator's log of another policy: its weights, and a model of rewards beside them.

N answers · K candidates · F features · S positions.
"""

import numpy as np

from fuserank.feedback.estimators import Log, weights_of
from fuserank.feedback.policies.slates import at
from fuserank.feedback.rewards import fit_rewards

FOLDS = 5


def judged(
    chances: np.ndarray,
    features: np.ndarray,
    rows: np.ndarray,
    propensities: np.ndarray,
    rewards: np.ndarray,
    ridge: float = 1.0,
    seed: int = 0,
) -> Log:
    """
    Args:
        chances: [N, K, S] of the policy that is judged. features: [N, K, F], what the model of rewards reads.
        rows: int64 [N, S] places of the shown among the candidates; propensities: [N, S] of the policy that served.
        rewards: [N, S].

    Raises:
        PolicyError: fewer answers than folds, or a propensity outside (0, 1].
    """
    shown = np.take_along_axis(features, rows[..., None], axis=1)
    model = fit_rewards(shown, rewards, np.einsum("nks,nkf->nsf", chances, features), ridge, FOLDS, seed)
    weights = weights_of(at(chances, rows), propensities)
    return Log(rewards, weights, model.predicted, model.expected, model.influence)
