"""What one trial of `fuserank tune` is: a training above cached encoder outputs, or a whole training on Ray Train.

Both read preprocess/ and the outputs of the pre-trained encoders in tune/cache/, which all trials share, and leave
what they trained in tune/trials/<number>/. Neither imports torch before it is called in a trial's process.
"""

import shutil
from pathlib import Path
from typing import Any

from fuserank import config
from fuserank.artifacts import stage_path, write_json
from fuserank.config import Experiment
from tune.search import Stopped, Watch

CACHE, TRIALS = "cache", "trials"
WEIGHTS = "weights.safetensors"


def trial_folder(folder: Path, number: int) -> Path:
    """Where trial `number` leaves what it trained; `folder` is the stage's."""
    return folder / TRIALS / str(number)


def fill_cache(experiment: Experiment, folder: Path) -> Path:
    """The stage's cache of encoder outputs, built once."""
    from fuserank.training.cached import build_cache

    cache = folder / CACHE
    if not (cache / "complete.json").is_file():
        build_cache(experiment, cache)
        write_json(cache / "complete.json", {})
    return cache


def present_modalities(cache: Path) -> tuple[str, ...]:
    """Modalities that at least one product of the shop has."""
    import numpy as np

    from fuserank.records.schema import MODALITIES

    known = np.load(cache / "product_mask.npy").any(0)
    return tuple(m for m, there in zip(MODALITIES, known, strict=True) if there)


def trial_settings(experiment: Experiment) -> dict[str, Any]:
    """How many trials run at once, and the CPUs one reserves: a whole training's are its workers'."""
    import ray

    settings, cpus = experiment.tune, ray.cluster_resources().get("CPU", 1)
    if settings.training == "cached":
        return {"concurrent": settings.concurrent, "cpus": min(settings.cpus_per_trial, int(cpus))}
    each = experiment.train.workers * experiment.train.cpus_per_worker
    return {"concurrent": max(1, min(settings.concurrent, int(cpus // each))), "cpus": 0}


class CachedTraining:
    """Params → validation nDCG@10 of a short training on the cached encoder outputs."""

    def __init__(self, folder: Path, experiment: Experiment):
        """folder: of the stage."""
        self.folder, self.values = folder, experiment.model_dump(mode="json")

    def prepare(self) -> None:
        from fuserank.training import cached  # noqa: F401

    def __call__(self, params: dict[str, Any], watch: Watch) -> float:
        from fuserank.training.cached import train_on_cache

        values = config.update(config.validate(self.values), params).model_dump(mode="json")
        weights = trial_folder(self.folder, watch.number) / WEIGHTS
        return train_on_cache(self.folder / CACHE, values, watch, weights)


class WholeTraining:
    """Params → validation nDCG@10 of what `fuserank train` would train with them, on as many workers.

    A trial that was interrupted goes on from its last checkpoint. Encoders that a trial leaves frozen are not run:
    their outputs come from the cache.
    """

    def __init__(self, folder: Path, experiment: Experiment):
        """folder: of the stage."""
        self.folder, self.values = folder, experiment.model_dump(mode="json")

    def __call__(self, params: dict[str, Any], watch: Watch) -> float:
        from fuserank.training.worker import train_worker
        from workloads.trainer import run_trainer

        chosen = config.update(config.validate(self.values), params)
        out = trial_folder(self.folder, watch.number)
        out.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "experiment": chosen.model_dump(mode="json"),
            "preprocess": str(stage_path(chosen, "preprocess")),
            "pretrain": str(stage_path(chosen, "pretrain") / "checkpoint"),
            "out": str(out),
            "least": [[epoch, score] for epoch, score in watch.least.items()],
        }
        if frozen := tuple(m for m, encoder in chosen.encoders if getattr(encoder, "adaptation", "") == "frozen"):
            values |= {"frozen": frozen, "cache": str(self.folder / CACHE)}
        metrics = run_trainer(train_worker, values, out, chosen.train, workers=chosen.train.workers)
        watch.history.extend(metrics["scores"])
        watch.stopped = metrics["stopped"]
        shutil.rmtree(out / "model", ignore_errors=True)
        if watch.stopped is None:
            shutil.move(out / "checkpoint" / "model", out / "model")
        for rest in ("checkpoint", "trainer"):
            shutil.rmtree(out / rest, ignore_errors=True)
        if watch.stopped is not None:
            raise Stopped
        return metrics["best"]
