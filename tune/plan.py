"""Which values trial n tries and below which scores it is stopped: Optuna's samplers, and asynchronous halving.

Everything about trial n follows from the seed and from the results of trials 0 … n − lag, told to Optuna in that order,
whatever else has finished by then. So the plan is the same for any timing, and a search that was killed anywhere goes
on with the trials it would have had: the finished ones are told again, and nothing of Optuna has to be kept on disk.
Ray Tune's own ASHA and Optuna wrappers decide by what happens to be finished, which no second run can repeat.

Samplers: uniform at random; TPE (Bergstra et al. 2011; with several objectives Ozaki et al. 2022), trials under way
counted as bad ones (constant liar), so that trials at the same time differ. Stopping: ASHA (Li et al. 2020,
https://arxiv.org/abs/1810.05934) in the form that stops: after g, g·η, g·η² … epochs a trial ends whose best score is
below the (1 − 1/η) quantile of the earlier trials' at that point. Where cost counts too, only earlier trials that
cost no more are compared: what they beat cannot enter the Pareto front.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from fuserank.errors import StageError
from tune.ledger import Trial
from tune.space import rounded

Algorithm = Literal["tpe", "random"]


@dataclass(frozen=True)
class Halving:
    """When trials may be stopped: after `grace` epochs, then each time after `reduction` times as many."""

    epochs: int  # of a whole trial
    grace: int = 1
    reduction: int = 3

    def rungs(self) -> list[int]:
        found, rung = [], self.grace
        while rung < self.epochs:
            found.append(rung)
            rung *= self.reduction
        return found


@dataclass(frozen=True)
class Step:
    """What a trial is told: its number, its values, and epoch → the score it has to reach by then."""

    number: int
    params: dict[str, Any]
    least: dict[int, float]
    cost: float | None


class Plan:
    """Hands out trials in order; `finished` takes their results in any order."""

    def __init__(
        self,
        space: dict[str, BaseDistribution],
        points: list[dict[str, Any]],
        trials: int,
        algorithm: Algorithm = "tpe",
        seed: int = 0,
        lag: int = 4,
        halving: Halving | None = None,
        cost: Callable[[dict[str, Any]], float] | None = None,
        alike: bool = True,
    ):
        """
        Args:
            points: values to try first, in this order.
            lag: trial n waits for the results of trials up to n − lag.
            cost: values → what is to be minimised beside the score; makes the search multi-objective.
            alike: scores of stopped trials are of the same measure as those of complete ones. If not, the search for
                a front learns nothing of a stopped trial; with one objective they are ranked among themselves anyway.
        """
        self.space, self.trials, self.lag, self.halving, self.cost = space, trials, max(1, lag), halving, cost
        self.alike = alike
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [maximize] if cost is None else [maximize, minimize]
        self._study = optuna.create_study(sampler=_sampler(algorithm, seed, len(points), trials), directions=directions)
        for point in points:
            self._study.enqueue_trial(point)
        self._asked: list[optuna.Trial] = []
        self._steps: list[Step] = []
        self._done: dict[int, Trial] = {}
        self._told = 0

    def known(self, trials: dict[int, Trial]) -> None:
        """Results of an earlier run of the same search; `next` skips them."""
        self._done |= trials

    def next(self) -> Step | None:
        """The next trial that has not run; None where it has to wait for a result, or where none is left."""
        while len(self._asked) < self.trials:
            number = len(self._asked)
            while self._told <= number - self.lag:
                if self._told not in self._done:
                    return None
                self._tell(self._told)
                self._told += 1
            trial = self._study.ask(self.space)
            params = rounded({name: trial.params[name] for name in self.space})
            cost = None if self.cost is None else float(self.cost(params))
            step = Step(number, params, self._least(cost), cost)
            self._asked.append(trial)
            self._steps.append(step)
            if number not in self._done:
                return step
            if self._done[number].params != params:
                raise StageError(
                    f"trial {number} of an earlier search had {self._done[number].params}, not {params}.",
                    "Remove the folder of the `tune` stage and search anew.",
                )
        return None

    def finished(self, trial: Trial) -> None:
        """Take a result."""
        self._done[trial.number] = trial

    def _tell(self, number: int) -> None:
        trial, asked = self._done[number], self._asked[number]
        foreign = self.cost is not None and trial.stopped is not None and not self.alike
        if trial.score is None or foreign:
            self._study.tell(asked, state=TrialState.FAIL)
        elif self.cost is not None:
            self._study.tell(asked, [trial.score, self._steps[number].cost or 0.0])
        elif trial.stopped is None:
            self._study.tell(asked, trial.score)
        else:
            asked.report(trial.score, trial.stopped)
            self._study.tell(asked, state=TrialState.PRUNED)

    def _least(self, cost: float | None) -> dict[int, float]:
        if self.halving is None:
            return {}
        found = {}
        for rung in self.halving.rungs():
            reached = [
                trial.history[rung - 1]
                for trial in (self._done[number] for number in range(self._told))
                if len(trial.history) >= rung and (cost is None or (self._steps[trial.number].cost or 0.0) <= cost)
            ]
            if len(reached) >= self.halving.reduction:  # of fewer there is no quantile to speak of
                found[rung] = float(np.quantile(reached, 1 - 1 / self.halving.reduction))
        return found


def _sampler(algorithm: Algorithm, seed: int, points: int, trials: int) -> optuna.samplers.BaseSampler:
    if algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    first = max(points, trials // 3)  # TPE models nothing before it has seen so many
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first, constant_liar=True)
