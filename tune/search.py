"""Runs the trials of a plan on Ray Tune and returns all of them. Writes `folder`/trials.jsonl.

One trial is one call `objective(params, watch) -> score`, higher is better, on so many CPUs in a process that is kept
for the next trial. `watch(epoch, score)` is to be called after each epoch and ends a trial that cannot win. A trial
that fails is returned with its reason and the search goes on; one whose process is killed runs again. A search that was
interrupted goes on where it stood when `search` is called again with the same folder: finished trials are not repeated,
and those still to come have the values they would have had.
"""

import contextlib
import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from fuserank.errors import EvaluationError
from tune import ledger
from tune.ledger import Trial, best
from tune.plan import Plan, Step

SCORE = "score"
STATE = "search"
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # we write trials.jsonl; CSV and TensorBoard files a trial cost time
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # failed trials are shown in one line
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is restored from Ray Tune's own state
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Stopped(Exception):  # noqa: N818  # no error: how a trial ends early
    """The trial cannot win any more."""


class Watch:
    """A trial's scores so far; called after each epoch, it ends the trial that falls behind."""

    def __init__(self, number: int, least: dict[int, float]):
        """number: of the trial; least: epoch → the score it has to reach by then."""
        self.number, self.least = number, least
        self.history: list[float] = []
        self.stopped: int | None = None

    def __call__(self, epoch: int, score: float) -> None:
        """
        Raises:
            Stopped: the best score so far is below what the plan asks after this epoch.
        """
        top = max([float(score), *self.history[-1:]])
        self.history.append(top)
        if top < self.least.get(epoch, -math.inf):
            self.stopped = epoch
            raise Stopped


Objective = Callable[[dict[str, Any], Watch], float]


def search(
    objective: Objective,
    plan: Plan,
    folder: Path,
    concurrent: int = 2,
    cpus: float = 1,
    retries: int = 2,
    say: Callable[[str], None] = print,
) -> list[Trial]:
    """Run every trial of the plan that has not run yet, and return all of them by number.

    Args:
        objective: picklable; called in a worker process that computes with `cpus` threads. Where it has a method
            `prepare`, that is called before, and does not count to the trial's seconds.
        plan: new; results of an interrupted search are read from the folder.
        folder: absolute, on storage every node sees.
        concurrent: trials at once; also bounded by the CPUs there are.
        cpus: that one trial reserves; 0 for one that only waits for workers of its own.
        retries: how often a trial whose process dies is begun again.

    Raises:
        StageError: no trial was completed (the message holds the first reason); or the folder is of another search.
    """
    file, where = folder / ledger.FILE, folder / STATE
    known = {number: trial for number, trial in ledger.read(file).items() if number < plan.trials}
    plan.known(known)
    steps = Steps(plan, file, len(known), say)
    if left := plan.trials - len(known):
        shutil.rmtree(where, ignore_errors=True)  # of a killed driver
        with _quiet():
            # Ray Tune refuses what reserves nothing; a fraction of a CPU would keep a whole one from a trial's workers.
            reserved: dict[str, float] = {"cpu": cpus} if cpus else {"memory": 1}
            trainable = tune.with_resources(tune.with_parameters(_trial, objective=objective), reserved)
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    metric=SCORE,
                    mode="max",
                    num_samples=left,
                    search_alg=steps,
                    max_concurrent_trials=concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=STATE,
                    storage_path=str(folder),
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=retries),
                    callbacks=[Reasons(steps)],
                ),
            ).fit()
        shutil.rmtree(where, ignore_errors=True)
    found = list(ledger.read(file).values())
    best(found)
    return found


class Steps(Searcher):
    """The plan as Ray Tune's search algorithm; results go to the ledger, and a line about each to the terminal."""

    def __init__(self, plan: Plan, file: Path, done: int, say: Callable[[str], None]):
        super().__init__(metric=SCORE, mode="max")
        self.plan, self.file, self.done, self.say = plan, file, done, say
        self.running: dict[str, Step] = {}
        self.reasons: dict[str, str] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True  # the plan has its own

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        step = self.plan.next()
        if step is None:  # Ray Tune asks again when a trial has ended
            return None
        self.running[trial_id] = step
        return {"number": step.number, "params": step.params, "least": [[e, s] for e, s in step.least.items()]}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        step = self.running.pop(trial_id)
        if error or not result or SCORE not in result:
            reason = self.reasons.pop(trial_id, "its process ended without a reason.")
            trial = Trial(step.number, step.params, None, None, reason, cost=step.cost)
        else:
            score = None if result["error"] else result[SCORE]
            history = [round(value, 6) for value in result["history"]]
            trial = Trial(
                step.number,
                step.params,
                score,
                round(result["seconds"], 3),
                result["error"],
                result["stopped"],
                history,
                step.cost,
            )
        ledger.append(self.file, trial)
        self.plan.finished(trial)
        self._show(trial)

    def _show(self, trial: Trial) -> None:
        self.done += 1
        scores = [t.score for t in ledger.read(self.file).values() if t.complete and t.score is not None]
        top = max(scores, default=math.nan)
        if trial.score is None:
            outcome = f"FAILED: {trial.error}"
        else:
            outcome = f"{trial.score:.4f}" + (f" stopped after {trial.stopped}" if trial.stopped is not None else "")
        values = " ".join(f"{path.rpartition('.')[2]}={number}" for path, number in trial.params.items())
        self.say(f"tune: {self.done}/{self.plan.trials}  trial {trial.number}  {outcome}  best {top:.4f}  {values}")

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("the ledger is what a search goes on from", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:  # Ray wants one; only Tuner.restore would call it
        raise NotImplementedError("a search goes on from its ledger")


class Reasons(tune.Callback):
    """Keeps why a trial's process ended, as text, until the searcher is told that it has."""

    def __init__(self, steps: Steps):
        self.steps = steps

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        file = Path(trial.error_file or "")
        lines = file.read_text(encoding="utf-8").strip().splitlines() if file.is_file() else []
        if lines:
            self.steps.reasons[trial.trial_id] = lines[-1].strip()[:500]


def _trial(told: dict[str, Any], objective: Objective) -> dict[str, Any]:
    import ray

    reserved = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    limit_threads(max(1, int(reserved)))
    watch = Watch(told["number"], {int(epoch): score for epoch, score in told["least"]})
    getattr(objective, "prepare", lambda: None)()  # imports: seconds of the process, not of the trial
    begin, error, score = time.monotonic(), None, -math.inf
    try:
        score = float(objective({**told["params"]}, watch))
        if not math.isfinite(score):
            raise EvaluationError(f"the trial's score is {score}: training diverged.")
    except Stopped:
        score = watch.history[-1]
    except Exception as reason:  # shown as this trial's result; the search goes on, and it would only fail again
        error, score = f"{type(reason).__name__}: {str(reason).strip()}"[:500], -math.inf
    return {
        SCORE: score,
        "seconds": time.monotonic() - begin,
        "error": error,
        "stopped": watch.stopped,
        "history": watch.history,
    }


def limit_threads(count: int) -> None:
    """Compute with so many threads in this process, so that trials at the same time share the machine."""
    os.environ["OMP_NUM_THREADS"] = str(count)  # for what is not loaded yet
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(count)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune's environment and a quiet log for the length of a search."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(ENVIRONMENT)
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
