"""What a finished search says: the Pareto front, the trial to keep, and how much each parameter mattered.

Importance is PED-ANOVA (Watanabe, Bansal and Hutter 2023, https://arxiv.org/abs/2304.10255), as Optuna has it: how far
the values of the best trials lie from the values of all of them, parameter by parameter. Functional ANOVA, its older
kin, would need scikit-learn for its forest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from tune.ledger import Trial, best

ENOUGH = 8  # trials before anything is said of importance
TOP = 0.25  # share of the trials that count as the best


def front(trials: Sequence[Trial], latency: Mapping[int, float]) -> list[Trial]:
    """The complete trials that no other one beats in score and in latency, the fastest first.

    Args:
        latency: ms by number; trials without one are left out.
    """
    timed = [trial for trial in trials if trial.complete and trial.number in latency]
    found: list[Trial] = []
    for trial in sorted(timed, key=lambda t: (latency[t.number], -(t.score or 0.0), t.number)):
        if not found or (trial.score or 0.0) > (found[-1].score or 0.0):
            found.append(trial)
    return found


def chosen(trials: Sequence[Trial], latency: Mapping[int, float], limit: float | None = None) -> Trial:
    """The trial that best.yaml is made of: the highest score, within `limit` ms where any is.

    Raises:
        StageError: no trial was completed.
    """
    within = [t for t in trials if limit is not None and t.complete and latency.get(t.number, float("inf")) <= limit]
    return best(list(within or trials))


def importance(trials: Sequence[Trial], space: Mapping[str, BaseDistribution]) -> dict[str, float]:
    """Share by parameter of what tells the best trials from all others, the largest first; they sum to 1.

    Stopped trials count with the score they had. Empty below ENOUGH trials, or where all have the same score.
    """
    scored = [trial for trial in trials if trial.score is not None]
    if len(scored) < ENOUGH or len({trial.score for trial in scored}) == 1:
        return {}
    study = optuna.create_study(direction="maximize")
    for trial in scored:
        params: dict[str, Any] = {name: _inside(space[name], trial.params[name]) for name in space}
        study.add_trial(create_trial(params=params, distributions=dict(space), value=trial.score))
    found = PedAnovaImportanceEvaluator(target_quantile=TOP).evaluate(study)
    total = sum(found.values())
    shares = {name: share / total for name, share in found.items()} if total > 0 else {}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _inside(distribution: BaseDistribution, value: Any) -> Any:
    """Rounding may have put a number a hair outside its range."""
    low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
    return value if low is None or high is None else min(max(value, low), high)
