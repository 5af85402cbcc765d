"""The function each Ray Train worker runs for `train`: resumes, trains, checkpoints, refines, exports."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fuserank import config
from fuserank.models.checkpoint import save_model
from fuserank.training.refine import refine
from fuserank.training.state import bare, load_state, save_state
from fuserank.training.supervised import Supervised, describe, freeze, new_fit, new_model, open_splits
from fuserank.training.tracking import Tracker

CHECKPOINT_EVERY = 40.0  # seconds: a report costs up to 2 s, so short epochs share a checkpoint


def train_worker(values: dict[str, Any]) -> None:
    """Train to the end.

    Args:
        values: `experiment` (dict), and the folders `preprocess`, `pretrain` and `out`.
    """
    import ray.train
    from ray.train import Checkpoint
    from ray.train.torch import get_device, prepare_model

    experiment = config.validate(values["experiment"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(experiment.seed)
    device = get_device()
    model = new_model(experiment, Path(values["preprocess"]), Path(values["pretrain"]))
    freeze(model, experiment.encoders)
    events = experiment.encoders.recommender.events if experiment.encoders.recommender else 0
    splits = open_splits(Path(values["preprocess"]), model.modalities, events)
    job = Supervised(model, splits, experiment, device)
    options = experiment.train
    fit = new_fit(job.objective, options, options.epochs * splits.train.steps(options.batch_size))
    best: dict[str, Any] = {"score": -1.0, "epoch": 0, "weights": {}}
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            best = load_state(fit, Path(folder))["best"]
    if world > 1:
        fit.module = prepare_model(fit.module, parallel_strategy_kwargs={"find_unused_parameters": True})
    tracker = Tracker(Path(values["out"]), "train", experiment.tracking.tensorboard) if rank == 0 else None
    saved = time.monotonic()
    while fit.epoch < options.epochs:
        metrics = job.epoch(fit, rank, world)
        score = metrics.get("ndcg@10", 0.0)
        if rank == 0 and (options.keep == "last" or score >= best["score"]):
            weights = {k: v.detach().cpu().clone() for k, v in bare(fit.module).model.state_dict().items()}  # type: ignore[union-attr]
            best = {"score": score, "epoch": fit.epoch, "weights": weights}
        if tracker is not None:
            tracker.log(fit.epoch, options.epochs, metrics)
        due = torch.tensor(float(fit.epoch == options.epochs or time.monotonic() - saved > CHECKPOINT_EVERY))
        if world > 1:
            torch.distributed.broadcast(due := due.to(device), 0)  # all workers report together
        if not due:
            continue
        saved = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                save_state(fit, Path(folder), {"best": best})
            ray.train.report({"epoch": fit.epoch}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)
    if tracker is not None:
        tracker.close()
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            save_state(fit, Path(folder), {"best": best})
            model.load_state_dict(best["weights"])
            score = best["score"]
            if options.refine.steps:
                tracker = Tracker(Path(values["out"]), "refine", experiment.tracking.tensorboard)
                score = refine(job, tracker.log).get("ndcg@10", 0.0)
                tracker.close()
            save_model(model, Path(folder) / "model")
            report = {"epoch": fit.epoch, "best_epoch": best["epoch"], "best": score, "parameters": describe(model)}
            ray.train.report(report, checkpoint=Checkpoint.from_directory(folder))
        else:
            ray.train.report({}, checkpoint=None)
