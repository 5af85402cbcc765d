"""`fuserank tune`: searches fusion kind, loss weights and modality dropout on cached encoder outputs.

Reads preprocess/ and pretrain/. Writes tune/: cache/ (encoder outputs, built once), search/ and trials.jsonl (from
which an interrupted search goes on), then trials.json, best.yaml (the experiment with the best trial's values: it
trains as it stands) and trials.png. Trials are judged by nDCG@10 on the validation split only; trial 0 is the present
config, so the winner is never worse there.
"""

from pathlib import Path
from typing import Any

from fuserank import config
from fuserank.artifacts import run_stage, write_json
from fuserank.config import Experiment
from fuserank.evaluation import plots
from tune.search import best, search
from tune.space import space, starting_points
from workloads.progress import say

METRIC = "validation ndcg@10"


def run(experiment: Experiment) -> dict:
    """The stage's manifest; its summary names the best trial."""
    return run_stage(experiment, "tune", lambda folder: _tune(experiment, folder), say=say)


class CachedTraining:
    """One trial: params → validation nDCG@10 of a short training on the cached encoder outputs."""

    def __init__(self, cache: Path, experiment: Experiment):
        self.cache, self.values = cache, experiment.model_dump(mode="json")

    def __call__(self, params: dict[str, Any]) -> float:
        from fuserank.training.cached import train_on_cache  # imports torch: only in the trial's process

        chosen = config.update(config.validate(self.values), params)
        return train_on_cache(self.cache, chosen.model_dump(mode="json"), lambda epoch, score: None)


def _tune(experiment: Experiment, folder: Path) -> dict:
    from fuserank.training.cached import build_cache

    settings, cache = experiment.tune, folder / "cache"
    if not (cache / "complete.json").is_file():
        build_cache(experiment, cache)
        write_json(cache / "complete.json", {})
    trials = search(
        CachedTraining(cache, experiment),
        space(experiment),
        starting_points(experiment),
        folder,
        settings.trials,
        settings.concurrent,
        experiment.seed,
        settings.algorithm,
        say,
    )
    winner = best(trials)
    config.dump(config.update(experiment, winner.params), folder / "best.yaml")
    write_json(
        folder / "trials.json", {"metric": METRIC, "best": winner.number, "trials": [t.as_dict() for t in trials]}
    )
    kinds = [str(trial.params.get("fusion.kind")) for trial in trials]
    (folder / "trials.png").write_bytes(plots.trials([trial.score for trial in trials], kinds, METRIC))
    return {
        "trials": len(trials),
        "failed": sum(trial.score is None for trial in trials),
        "best": winner.as_dict(),
        "present": trials[0].as_dict(),
    }
