"""The Ray Train worker of `pretrain`: every task the config asks for, one after the other, in a fixed order.

What a task leaves ends as `<part>.safetensors` in the last checkpoint; the next task starts from it.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from fuserank import config
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.feedback.sequences import training_histories
from fuserank.models.checkpoint import load_weights, save_weights
from fuserank.models.encoders.audio import AudioEncoder
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.text import TextEncoder
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training.data import Side
from fuserank.training.encode import encode_table
from fuserank.training.group import ALONE, Group
from fuserank.training.loop import make_fit, run_epoch
from fuserank.training.pretraining.audio import AudioTask
from fuserank.training.pretraining.behaviour import BehaviourTask
from fuserank.training.pretraining.cross import CrossTask, met
from fuserank.training.pretraining.image import ImageTask
from fuserank.training.pretraining.spans import SpansTask
from fuserank.training.pretraining.task import Task, in_training
from fuserank.training.pretraining.text import TextTask
from fuserank.training.session import Session
from fuserank.training.start import calibrate_fresh, new_model
from fuserank.training.state import capture, load_state, write_state
from fuserank.training.supervised import fused_table
from fuserank.training.tracking import Tracker

DONE = "done.json"  # name of each ended task → its last loss
TASKS = ("text", "image", "audio", "cross", "spans", "behaviour")


def make_task(
    name: str,
    model: FusedModel,
    preprocess: Path,
    products: FeatureTable,
    events: int = 0,
    seed: int = 0,
    group: Group = ALONE,
) -> Task | None:
    """The task of that name; None where there is nothing to learn from or no way to.

    Args:
        events: length of the histories, for behaviour.
    """
    settings = Featurizer.load(preprocess).settings
    encoder: Any = model.encoders[name] if name in model.modalities else None
    if isinstance(encoder, ImageEncoder):
        task: Any = ImageTask(encoder, preprocess, products, group)
    elif isinstance(encoder, TextEncoder):
        if settings.mask_id is None:
            return None  # a tokenizer without [MASK] belongs to a model that was not trained by masking
        task = TextTask(encoder, preprocess, products, settings.mask_id, settings.vocabulary, group)
    elif isinstance(encoder, AudioEncoder):
        task = AudioTask(encoder, preprocess, products, group)
    elif (name == "cross" and len(met(model)) > 1) or (name == "spans" and "text" in model.modalities):
        calibrate_fresh(model, products, np.flatnonzero(in_training(preprocess, "products", len(products.ids))), seed)
        task = (CrossTask if name == "cross" else SpansTask)(model, preprocess, products, group)
    elif name == "behaviour" and model.recommender is not None and (preprocess / "events.parquet").is_file():
        histories = training_histories(pq.read_table(preprocess / "events.parquet"), products.ids, events)
        if histories is None:
            return None
        device = next(model.parameters()).device
        columns = [MODALITIES.index(modality) for modality in model.modalities]
        catalogue = encode_table(model, products, np.arange(len(products.ids)), columns, "product", device, group=group)
        task = BehaviourTask(model, histories, fused_table(model, catalogue, device).clone(), group)
    else:
        return None
    return task if task.count else None


def pretrain_worker(values: dict[str, Any]) -> None:
    """Pre-train everything that the config asks for.

    Args:
        values: `experiment` (dict), and the folders `preprocess` and `out`.
    """
    import ray.train

    experiment = config.validate(values["experiment"])
    session = Session(experiment.train.checkpoint_seconds)
    preprocess, device = Path(values["preprocess"]), session.device
    torch.manual_seed(experiment.seed)
    model = new_model(experiment, preprocess, None).to(device)
    products = FeatureTable.open(preprocess / "features")
    tracker = Tracker(Path(values["out"]), "pretrain", experiment.tracking) if session.first else None
    events = experiment.encoders.recommender.events if experiment.encoders.recommender else 0
    finished: dict[str, nn.Module] = {}
    losses: dict[str, float] = {}
    ended: list[str] = []
    resumed = tempfile.TemporaryDirectory()
    if (last := ray.train.get_checkpoint()) is not None:
        last.to_directory(resumed.name)
    kept = Path(resumed.name)

    def save_parts(folder: Path) -> None:
        for part, module in finished.items():
            save_weights(module, folder / f"{part}.safetensors")
        (folder / DONE).write_text(json.dumps({name: losses[name] for name in ended}), encoding="utf-8")

    done = json.loads((kept / DONE).read_text(encoding="utf-8")) if (kept / DONE).is_file() else {}
    for name in TASKS:
        options = getattr(experiment.pretrain, name)
        task = (
            make_task(name, model, preprocess, products, events, experiment.seed, session.group)
            if options.epochs
            else None
        )
        if task is None:
            continue
        if name in done:  # by an earlier attempt
            for part, module in task.parts.items():
                load_weights(module, kept / f"{part}.safetensors")
            finished |= task.parts
            losses[name] = done[name]
            ended.append(name)
            continue
        _run(name, task, options, experiment, session, kept / name, tracker, losses, save_parts)
        finished |= task.parts
        ended.append(name)
        session.report({"losses": dict(losses)}, save_parts)
    if not finished:
        session.report({"losses": {}}, lambda folder: (folder / "nothing").touch())
    resumed.cleanup()
    if tracker is not None:
        tracker.close()


def _run(
    name: str,
    task: Task,
    options: config.PretrainTask,
    experiment: config.Experiment,
    session: Session,
    kept: Path,
    tracker: Tracker | None,
    losses: dict[str, float],
    save_parts: Any,
) -> None:
    """One task to its end, from where `kept` stands if there is such a folder."""
    module, size = task.module.to(session.device), options.batch_size
    wrapped, _ = session.spread(module, nn.ModuleDict(), "ddp")
    steps = task.steps(size) * options.epochs
    moved = [p for p in module.parameters() if p.requires_grad]
    fit = make_fit(wrapped, [{"params": moved, "lr": options.learning_rate}], steps, 0.1, 0.01)
    if kept.is_dir():
        load_state(fit, kept)

    def write(folder: Path) -> None:
        save_parts(folder)
        write_state(state, folder / name)

    def checkpoint_if_due() -> None:
        nonlocal state
        if session.due():
            state = capture(fit, {})
            session.report({"task": name, "epoch": fit.epoch, "step": fit.step}, write)

    state: dict[str, Any] = {}
    precision, clip = experiment.train.precision, experiment.train.clip
    while fit.epoch < options.epochs:
        batches = _moved(task.batches(fit.epoch, experiment.seed, size, fit.step), session.device)
        found = run_epoch(fit, batches, {task.loss: 1.0}, session.device, precision, clip, checkpoint_if_due)
        losses[name] = found["loss"]
        if tracker is not None:
            tracker.log(fit.epoch, options.epochs, {f"{name}_loss": found["loss"]})
        checkpoint_if_due()


def _moved(batches: Iterator[tuple], device: torch.device) -> Iterator[tuple]:
    def there(value: Any) -> Any:
        if isinstance(value, Tensor | Side):
            return value.to(device)
        return {k: v.to(device) for k, v in value.items()} if isinstance(value, dict) else value

    return (tuple(map(there, arguments)) for arguments in batches)
