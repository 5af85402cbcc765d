"""Runs trials of an objective on Ray Tune and returns all of them. Writes `folder`/trials.jsonl and Ray Tune's state.

One trial is one call `objective(params) -> score`, higher is better, on one CPU in a process that is kept for the next
trial. A trial that fails is returned with its reason and the search goes on. A search that was interrupted goes on
where it stood when `search` is called again with the same folder: finished trials are not repeated.
"""

import contextlib
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from ray import cloudpickle, tune
from ray.exceptions import RayTaskError
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Domain

from fuserank.errors import EvaluationError, StageError
from tune.space import rounded

SCORE = "score"
STATE = "search"
LEDGER = "trials.jsonl"
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # we write trials.json; CSV and TensorBoard files a trial cost time
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # failed trials are shown in one line by Ledger
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # a killed driver loses at most this many seconds of finished trials
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}

Objective = Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Trial:
    """One trial; `score` is None where it failed with `error`."""

    number: int
    params: dict[str, Any]
    score: float | None
    seconds: float | None
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Ledger(tune.Callback):
    """Appends each finished trial to a file, which outlives a killed driver, and says one line about it."""

    def __init__(self, file: Path, trials: int, say: Callable[[str], None]):
        self.file, self.trials, self.say = file, trials, say

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        result = trial.last_result
        self._add(Trial(_number(trial), rounded(trial.config), result[SCORE], round(result["seconds"], 3), None))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._add(Trial(_number(trial), rounded(trial.config), None, None, _reason(trial)))

    def _add(self, trial: Trial) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(trial.as_dict()) + "\n")
        done = read_ledger(self.file)
        top = max((t.score for t in done if t.score is not None), default=math.nan)
        outcome = f"FAILED: {trial.error}" if trial.score is None else f"{trial.score:.4f}"
        values = " ".join(f"{path.rpartition('.')[2]}={number}" for path, number in trial.params.items())
        self.say(f"tune: {len(done)}/{self.trials}  trial {trial.number}  {outcome}  best {top:.4f}  {values}")


def read_ledger(file: Path) -> list[Trial]:
    """Finished trials by number; of a trial that ran again after an interruption, the latest run."""
    found: dict[int, Trial] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):  # a line cut off by a kill: Ray Tune repeats that trial
            trial = Trial(**json.loads(line))
            found[trial.number] = trial
    return [found[number] for number in sorted(found)]


def search(
    objective: Objective,
    space: dict[str, Domain],
    points: list[dict[str, Any]],
    folder: Path,
    trials: int,
    concurrent: int = 2,
    seed: int = 0,
    algorithm: Literal["tpe", "random"] = "tpe",
    say: Callable[[str], None] = print,
) -> list[Trial]:
    """Run `trials` trials, the given points first, and return all of them in the order they were created.

    Args:
        objective: picklable; called with rounded params in a worker process with one CPU.
        space: name → Ray Tune domain.
        points: params to try first, in this order; the first one is the present config.
        folder: absolute, on storage every node sees.
        concurrent: trials at once; also bounded by the CPUs there are.

    Raises:
        StageError: every trial failed (the message holds the first reason).
    """
    where, ledger = folder / STATE, folder / LEDGER
    with _quiet():
        trainable = tune.with_resources(tune.with_parameters(_trial, objective=objective), {"cpu": 1})
        if tune.Tuner.can_restore(where):
            tuner = tune.Tuner.restore(str(where), trainable=trainable)
        else:
            tuner = tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    metric=SCORE,
                    mode="max",
                    num_samples=trials,
                    search_alg=_algorithm(algorithm, space, points, trials, seed),
                    max_concurrent_trials=concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=STATE, storage_path=str(folder), verbose=0, callbacks=[Ledger(ledger, trials, say)]
                ),
            )
        tuner.fit()
    found = read_ledger(ledger)
    if not any(trial.score is not None for trial in found):
        raise StageError(f"all {len(found)} trials failed; the first: {found[0].error if found else 'none ran'}")
    return found


def best(trials: list[Trial]) -> Trial:
    """The trial with the highest score; of equal ones the earliest."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (trial.score or 0.0, -trial.number))


def _trial(params: dict[str, Any], objective: Objective) -> dict[str, float]:
    begin = time.monotonic()
    score = float(objective(rounded(params)))
    if not math.isfinite(score):
        raise EvaluationError(f"the trial's score is {score}: training diverged.")
    return {SCORE: score, "seconds": time.monotonic() - begin}


def _algorithm(
    name: str, space: dict[str, Domain], points: list[dict[str, Any]], trials: int, seed: int
) -> OptunaSearch:
    if name == "random":
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        random_first = max(len(points), trials // 3)  # TPE models nothing before it has seen so many
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=random_first, constant_liar=True)
    return OptunaSearch(space=space, metric=SCORE, mode="max", points_to_evaluate=points, sampler=sampler)


def _reason(trial: Any) -> str:
    file = Path(trial.pickled_error_file or "")  # local: the copy in storage is written later
    if not file.is_file():
        return "the trial ended without a reason."
    error = cloudpickle.loads(file.read_bytes())
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {str(cause).strip()}"[:500]


def _number(trial: Any) -> int:
    return int(trial.experiment_tag.split("_")[0]) - 1  # Ray Tune's tag is "<count>_<params>"; it survives a restore


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune's environment and a quiet log for the length of a search."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    loggers = [logging.getLogger("ray.tune"), logging.getLogger("optuna")]
    levels = [logger.level for logger in loggers]
    os.environ.update(ENVIRONMENT)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
