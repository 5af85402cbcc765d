"""`fuserank tune`: searches fusion, loss weights, learning rates, adaptation, words and reranking on Ray Tune.

Reads preprocess/ and pretrain/. Writes tune/: cache/ (encoder outputs, built once for all trials), words/ (a word index
over the validation products, likewise), trials.jsonl and latency.json (from which an interrupted search goes on),
trials/<number>/ (what a trial trained), then trials.json, best.yaml and front/<number>.yaml (experiments that train as
they stand) and report.html. Trials are judged by nDCG@10 on the validation split only; trial 0 is the present config,
so the winner is never worse there. Latency is measured alone, when no trial runs any more.
"""

import shutil
from pathlib import Path
from typing import Any

from fuserank import config
from fuserank.artifacts import run_stage, write_json
from fuserank.config import Experiment
from tune.front import chosen, front, importance
from tune.ledger import Trial
from tune.plan import Halving, Plan
from tune.search import search
from tune.space import space, starting_points
from workloads.progress import say
from workloads.trials import CachedTraining, WholeTraining, fill_cache, present_modalities, trial_settings
from workloads.tune_report import metric_of, write_report


def run(experiment: Experiment) -> dict:
    """The stage's manifest; its summary names the best trial."""
    return run_stage(experiment, "tune", lambda folder: _tune(experiment, folder), say=say)


def plan_of(experiment: Experiment, cache: Path, points: bool = True) -> Plan:
    """The trials of an experiment's search; the same for every run of it.

    Args:
        points: try the config as it stands and each kind of fusion first.
    """
    settings, present = experiment.tune, present_modalities(cache)
    epochs = settings.epochs if settings.training == "cached" else experiment.train.epochs
    halving = Halving(epochs, settings.stop.grace, settings.stop.reduction) if settings.stop.kind == "asha" else None
    return Plan(
        space(experiment, present),
        starting_points(experiment, present) if points else [],
        settings.trials,
        settings.algorithm,
        experiment.seed,
        2 * settings.concurrent,  # so that a long trial does not keep the others' places empty
        halving,
        _work(experiment, cache) if "latency_ms" in settings.objectives else None,
        alike=not settings.space.of_index,
    )


def _work(experiment: Experiment, cache: Path):
    import numpy as np

    from workloads.query_time import work

    catalogue = len(np.load(cache / "product_mask.npy"))
    return lambda params: work(config.update(experiment, params), cache, catalogue)


def _tune(experiment: Experiment, folder: Path) -> dict[str, Any]:
    from workloads.query_time import measure
    from workloads.trial_shop import TrialShop

    cache, of_index = fill_cache(experiment, folder), experiment.tune.space.of_index
    if of_index:
        TrialShop(experiment, folder)  # builds the word index before trials open it
    plan = plan_of(experiment, cache)
    kind = CachedTraining if experiment.tune.training == "cached" else WholeTraining
    settings = trial_settings(experiment)
    trials = search(kind(folder, experiment), plan, folder, retries=experiment.tune.retries, say=say, **settings)
    latency = measure(experiment, folder, trials)
    winner, line = chosen(trials, latency, experiment.tune.latency_limit_ms), front(trials, latency)
    shares = importance([trial for trial in trials if trial.complete or not of_index], plan.space)
    _experiments(experiment, folder, winner, line)
    write_json(
        folder / "trials.json",
        {
            "metric": metric_of(experiment),
            "best": winner.number,
            "front": [trial.number for trial in line],
            "importance": shares,
            "trials": [trial.as_dict() | {"latency_ms": latency.get(trial.number)} for trial in trials],
        },
    )
    write_report(experiment, folder / "report.html", trials, latency, winner, line, shares)
    say(f"tune: trial {winner.number} is the best; report: {folder / 'report.html'}")
    return {
        "trials": len(trials),
        "failed": sum(trial.score is None for trial in trials),
        "stopped": sum(trial.stopped is not None for trial in trials),
        "best": winner.as_dict() | {"latency_ms": latency.get(winner.number)},
        "present": trials[0].as_dict(),
        "importance": shares,
    }


def _experiments(experiment: Experiment, folder: Path, winner: Trial, line: list[Trial]) -> None:
    """best.yaml, and one file for each trial of the front."""
    config.dump(config.update(experiment, winner.params), folder / "best.yaml")
    shutil.rmtree(folder / "front", ignore_errors=True)
    (folder / "front").mkdir()
    for trial in line:
        config.dump(config.update(experiment, trial.params), folder / "front" / f"{trial.number}.yaml")
