"""The function each Ray Train worker runs for `train`: resumes, trains, checkpoints, refines, exports."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fuserank import config
from fuserank.models.adapt import Adaptation
from fuserank.models.checkpoint import save_model, save_tensors
from fuserank.models.fused import FusedModel
from fuserank.training.refine import refine
from fuserank.training.state import bare, load_state, save_state
from fuserank.training.supervised import Supervised, adapt_encoders, describe, new_fit, new_model, open_splits
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
    events = experiment.encoders.recommender.events if experiment.encoders.recommender else 0
    splits = open_splits(Path(values["preprocess"]), model.modalities, events)
    options = experiment.train
    steps = options.epochs * splits.train.steps(options.batch_size)
    adaptations = adapt_encoders(model, experiment.encoders, steps)
    job = Supervised(model, splits, experiment, device, adaptations=adaptations)
    fit = new_fit(job.objective, options, steps)
    best: dict[str, Any] = {"score": -1.0, "epoch": 0, "weights": {}}
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            extra = load_state(fit, Path(folder))
        best = extra["best"]
        for modality, adaptation in adaptations.items():
            adaptation.load_state_dict(extra["adaptations"][modality])
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
                save_state(fit, Path(folder), {"best": best, "adaptations": _remembered(adaptations)})
            ray.train.report({"epoch": fit.epoch}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)
    if tracker is not None:
        tracker.close()
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            save_state(fit, Path(folder), {"best": best, "adaptations": _remembered(adaptations)})
            model.load_state_dict(best["weights"])
            score = best["score"]
            if options.refine.steps:
                tracker = Tracker(Path(values["out"]), "refine", experiment.tracking.tensorboard)
                score = refine(job, tracker.log).get("ndcg@10", 0.0)
                tracker.close()
            report = {"epoch": fit.epoch, "best_epoch": best["epoch"], "best": score, "parameters": describe(model)}
            export(model, adaptations, Path(folder) / "model")
            ray.train.report(report, checkpoint=Checkpoint.from_directory(folder))
        else:
            ray.train.report({}, checkpoint=None)


def export(model: FusedModel, adaptations: dict[str, Adaptation], folder: Path) -> None:
    """The model, LoRA's parts merged, and each encoder's trained parts alone (`<modality>.adapter.safetensors`)."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality, adaptation in adaptations.items():
        if parts := adaptation.parts():
            save_tensors(parts, folder / f"{modality}.adapter.safetensors")
        adaptation.merge()
    save_model(model, folder)


def _remembered(adaptations: dict[str, Adaptation]) -> dict[str, Any]:
    return {modality: adaptation.state_dict() for modality, adaptation in adaptations.items()}
