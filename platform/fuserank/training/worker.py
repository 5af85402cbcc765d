"""The Ray Train worker of `train`: resumes, trains, checkpoints, refines, exports."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from fuserank import config
from fuserank.feedback.questions import questions
from fuserank.models.adapt import Adaptation
from fuserank.models.checkpoint import save_model, save_tensors
from fuserank.models.fused import FusedModel
from fuserank.records.splits import VALIDATION
from fuserank.training.cached import SIDES, open_overlay
from fuserank.training.encode import encode_table
from fuserank.training.loop import Fit
from fuserank.training.refine import refine
from fuserank.training.sequential import fit_recommender
from fuserank.training.session import Session
from fuserank.training.splits import open_splits
from fuserank.training.start import adapt_encoders, describe, new_model
from fuserank.training.state import FILE, WHOLE, capture, load_state, write_state
from fuserank.training.supervised import Supervised, fused_table, new_fit
from fuserank.training.tracking import Tracker
from fuserank.training.trust import fit_trust

RECOMMEND = "recommend.state"  # of the recommender's own part, until it is done


def train_worker(values: dict[str, Any]) -> None:
    """Train to the end.

    Args:
        values: `experiment` (dict), and the folders `preprocess`, `pretrain` and `out`; where encoders are frozen,
            their modalities (`frozen`) and the folder of their outputs (`cache`); where a search has begun it, the
            validation nDCG@10 that it has to reach (`least`: [epochs, score] pairs).
    """
    import ray.train

    experiment = config.validate(values["experiment"])
    options = experiment.train
    session = Session(options.checkpoint_seconds)
    torch.manual_seed(experiment.seed)
    model = new_model(experiment, Path(values["preprocess"]), Path(values["pretrain"]))
    model.trust.fill_(1.0)  # of a model that training goes on from, too
    events = experiment.encoders.recommender.events if experiment.encoders.recommender else 0
    frozen = values.get("frozen", ())
    sides = [
        open_overlay(Path(values["preprocess"]), Path(values["cache"]), side, frozen) if frozen else None
        for side in SIDES
    ]
    splits = open_splits(Path(values["preprocess"]), model.modalities, events, *sides, labels=options.labels)
    steps = options.epochs * splits.train.steps(options.batch_size)
    adaptations = adapt_encoders(model, experiment.encoders, steps)
    counts = describe(model)
    job = Supervised(model, splits, experiment, session.device, adaptations=adaptations, group=session.group)
    if options.compile:
        compile_encoders(model)
    module, sharded = session.spread(job.objective, model.encoders, options.strategy)
    fit = new_fit(job.objective, options, steps)
    fit.module, fit.sharded = module, sharded
    best: dict[str, Any] = {"score": -1.0, "epoch": 0, "weights": {}}
    scores: list[float] = []  # the best after each epoch
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            extra = load_state(fit, Path(folder))
        best, job.kept, scores = extra["best"], extra["remembered"], extra["scores"]
        for modality, adaptation in adaptations.items():
            adaptation.load_state_dict(extra["adaptations"][modality])

    def state() -> dict[str, Any]:
        remembered = job.remembered() if fit.step else {}
        moments = {modality: adaptation.state_dict() for modality, adaptation in adaptations.items()}
        return capture(fit, {"best": best, "scores": scores, "adaptations": moments, "remembered": remembered})

    def checkpoint_if_due() -> None:
        if session.due():
            values = state()
            session.report({"epoch": fit.epoch, "step": fit.step}, lambda folder: write_state(values, folder))

    least = dict(values.get("least", ()))
    tracker = Tracker(Path(values["out"]), "train", experiment.tracking) if session.first else None
    while fit.epoch < options.epochs and not (_stalled(fit, best, options) or behind(scores, least)):
        metrics = job.epoch(fit, checkpoint_if_due)
        score = session.group.agree(metrics.get("ndcg@10", 0.0), session.device)
        if options.keep == "last" or score >= best["score"]:
            best = {"score": score, "epoch": fit.epoch, "weights": _weights(model, fit)}
        scores.append(max([score, *scores[-1:]]))
        if tracker is not None:
            tracker.log(fit.epoch, options.epochs, metrics)
        checkpoint_if_due()
    if tracker is not None:
        tracker.close()
    end = tempfile.TemporaryDirectory()  # written before refining moves the weights
    write_state(state(), Path(end.name))
    _restore(model, best["weights"], fit)
    score, stopped = best["score"], behind(scores, least)
    if options.refine.steps and stopped is None:
        tracker = Tracker(Path(values["out"]), "refine", experiment.tracking) if session.first else None
        log = tracker.log if tracker is not None else (lambda *_: None)
        score = refine(job, log).get("ndcg@10", 0.0)
        if tracker is not None:
            tracker.close()
    trust: dict[str, float] = {}
    following = {}
    if stopped is None:
        trust = fit_trust(model, splits.validation, session.device, experiment.seed, session.group)
        if trust:
            score = splits.validation.score(model, session.device, group=session.group)["ndcg@10"]
        following = _recommend(job, Path(values["preprocess"]), Path(values["out"]), session)
    trained = _weights(model, fit)

    def write(folder: Path) -> None:
        shutil.copy(Path(end.name) / FILE, folder)
        whole, parts = model, adaptations
        if fit.sharded is not None:
            whole = new_model(experiment, Path(values["preprocess"]), None)
            parts = adapt_encoders(whole, experiment.encoders, steps)
            whole.load_state_dict(trained)
        export(whole, parts, folder / "model")

    report = {"epoch": fit.epoch, "best_epoch": best["epoch"], "best": score, "parameters": counts}
    report |= {"scores": scores, "stopped": stopped, "trust": trust, "recommend": following}
    session.report(report, write)
    end.cleanup()
    if session.first:
        shutil.rmtree(Path(values["out"]) / RECOMMEND, ignore_errors=True)


def _recommend(job: Supervised, preprocess: Path, out: Path, session: Session) -> dict[str, float]:
    """The recommender's own part; every worker does all of it, alike. Returns its validation metrics."""
    options, histories, model = job.experiment.train, job.splits.train.histories, job.model
    if model.recommender is None or histories is None or not options.recommend.epochs:
        return {}
    products = job.splits.train.products
    rows = np.arange(len(products.ids))
    catalogue = encode_table(model, products, rows, job.splits.columns, "product", job.device, group=job.group)
    asked, _ = questions(pq.read_table(preprocess / "events.parquet"), products.ids, VALIDATION)
    tracker = Tracker(out, "recommend", job.experiment.tracking) if session.first else None
    found = fit_recommender(
        model.recommender,
        fused_table(model, catalogue, job.device).clone(),
        histories,
        list(asked.values()),
        options.recommend,
        job.experiment.seed,
        job.device,
        tracker.log if tracker is not None else (lambda *_: None),
        out / RECOMMEND if session.first else None,
        options.keep,
    )
    if tracker is not None:
        tracker.close()
    return found


def compile_encoders(model: FusedModel) -> None:
    """Compile every text, image and Hugging Face audio network in place; names of weights stay as they are."""
    for encoder in model.encoders.values():
        if isinstance(backbone := getattr(encoder, "backbone", None), nn.Module):
            backbone.compile(dynamic=True)


def _stalled(fit: Fit, best: dict[str, Any], options: config.Train) -> bool:
    """Early stopping: no better validation for `patience` epochs."""
    return options.patience > 0 and fit.epoch - best["epoch"] >= options.patience and fit.step == 0


def behind(scores: list[float], least: Mapping[int, float]) -> int | None:
    """The first epoch after which the best score so far was below what was asked; None where it never was."""
    return next((epoch for epoch in sorted(least) if len(scores) >= epoch and scores[epoch - 1] < least[epoch]), None)


def _weights(model: nn.Module, fit: Fit) -> dict[str, Any]:
    """A copy of all weights, on the CPU; every worker calls this."""
    if fit.sharded is not None:
        return get_model_state_dict(model, options=WHOLE)
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _restore(model: nn.Module, weights: dict[str, Any], fit: Fit) -> None:
    if fit.sharded is not None:
        set_model_state_dict(model, weights, options=WHOLE)
    else:
        model.load_state_dict(weights)


def export(model: FusedModel, adaptations: dict[str, Adaptation], folder: Path) -> None:
    """The model, LoRA's parts merged, and each encoder's trained parts alone (`<modality>.adapter.safetensors`)."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality, adaptation in adaptations.items():
        if parts := adaptation.parts():
            save_tensors(parts, folder / f"{modality}.adapter.safetensors")
        adaptation.merge()
    save_model(model, folder)
