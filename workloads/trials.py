"""What one trial of `fuserank tune` is: a training above cached encoder outputs, or a whole training on Ray Train.

Both read preprocess/ and the outputs of the pre-trained encoders in tune/cache/, which all trials share, and leave
what they trained in tune/trials/<number>/. A trial's score is the validation nDCG@10 of the fused score; where keys of
`index` are searched, it is that of the served order (trial_answers.py), and the fused score is what may stop it early.
Neither imports torch before it is called in a trial's process.
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

        if config.validate(self.values).tune.space.of_index:
            from workloads import trial_answers  # noqa: F401

    def __call__(self, params: dict[str, Any], watch: Watch) -> float:
        from fuserank.training.cached import train_on_cache

        experiment = config.validate(self.values)
        chosen = config.update(experiment, params)
        weights = trial_folder(self.folder, watch.number) / WEIGHTS
        score = train_on_cache(self.folder / CACHE, chosen.model_dump(mode="json"), watch, weights)
        if not experiment.tune.space.of_index:
            return score
        from workloads.trial_answers import served_ndcg
        from workloads.trial_shop import TrialShop

        shop = TrialShop(experiment, self.folder)
        return served_ndcg(shop, chosen, shop.model(chosen, watch.number))


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
        score = metrics["best"]
        if watch.stopped is None and chosen.tune.space.of_index:
            score = self._served(chosen, out / "checkpoint" / "model")
        shutil.rmtree(out / "model", ignore_errors=True)
        if watch.stopped is None:
            shutil.move(out / "checkpoint" / "model", out / "model")
        for rest in ("checkpoint", "trainer"):
            shutil.rmtree(out / rest, ignore_errors=True)
        if watch.stopped is not None:
            raise Stopped
        return score

    def _served(self, chosen: Experiment, trained: Path) -> float:
        from fuserank.models.checkpoint import load_model
        from workloads.trial_answers import served_ndcg
        from workloads.trial_shop import TrialShop

        shop = TrialShop(config.validate(self.values), self.folder)
        return served_ndcg(shop, chosen, load_model(trained).eval())
