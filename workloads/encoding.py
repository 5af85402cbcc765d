"""Frozen encoders run once over all products and queries, by Ray Data; training then reads their outputs.

Writes `<run>/encoded/<digest>/<side>_<modality>.npy` (training/cached.py), which every training of these encoders on
this data finds again. Workers write a part a block, so that an interrupted run goes on where it stood.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from fuserank.artifacts import code_digest, digest, named_weights, stage_folder, write_json
from fuserank.config import Experiment
from fuserank.errors import StageError
from workloads.progress import bar

BLOCK = 1024  # rows
COMPLETE = "complete.json"


class EncodeBlock:
    """One worker: it loads the encoders once and writes the outputs of one block after the other."""

    def __init__(self, values: dict[str, Any], modalities: tuple[str, ...], folder: str):
        from fuserank import config
        from fuserank.training.cached import FrozenEncoders

        self.encoders = FrozenEncoders(config.validate(values), modalities)
        self.folder = Path(folder)

    def __call__(self, blocks: pa.Table) -> pa.Table:
        for block in blocks.to_pylist():
            for modality, hidden in self.encoders.encode(block["side"], block["begin"], block["begin"] + BLOCK).items():
                part = self.folder / f"{block['side']}_{modality}" / f"{block['begin']:012d}.npy"
                with part.with_suffix(".new").open("wb") as out:
                    np.save(out, hidden)
                part.with_suffix(".new").rename(part)
        return blocks


def encode_frozen(experiment: Experiment, modalities: tuple[str, ...]) -> Path:
    """The folder with these modalities' outputs; filled if it is not there. Others of the run are removed.

    Raises:
        StageError: a worker failed.
    """
    folder = _folder(experiment, modalities)
    if not (folder / COMPLETE).is_file():
        for old in folder.parent.glob("*"):
            if old != folder:
                shutil.rmtree(old)
        _encode(experiment, modalities, folder)
        write_json(folder / COMPLETE, {"modalities": modalities})
    return folder


def _folder(experiment: Experiment, modalities: tuple[str, ...]) -> Path:
    """Named by all that the outputs follow from."""
    start = named_weights(experiment)
    parts = [digest(experiment, "pretrain"), start, experiment.train.start, modalities, code_digest(("training",))]
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return experiment.run / "encoded" / name


def _encode(experiment: Experiment, modalities: tuple[str, ...], folder: Path) -> None:
    from fuserank.training.cached import SIDES, write_index

    masks = write_index(stage_folder(experiment, "preprocess"), folder)
    blocks = []
    for side in SIDES:
        for modality in modalities:
            (folder / f"{side}_{modality}").mkdir(parents=True, exist_ok=True)
        for begin in range(0, len(masks[side]), BLOCK):
            parts = [folder / f"{side}_{modality}" / f"{begin:012d}.npy" for modality in modalities]
            if not all(part.is_file() for part in parts):
                blocks.append({"side": side, "begin": begin})
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    if blocks:
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // experiment.train.cpus_per_worker)
        dataset = ray.data.from_items(blocks, override_num_blocks=len(blocks))
        dataset.context.enable_progress_bars = False  # ours
        mapped = dataset.map_batches(
            EncodeBlock,
            fn_constructor_args=(experiment.model_dump(mode="json"), modalities, str(folder)),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(blocks))),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=experiment.train.cpus_per_worker,
            num_gpus=1 if experiment.train.gpu else 0,
        )
        try:
            with bar() as progress:
                task = progress.add_task("frozen encoders", total=len(blocks), note="starting workers")
                for _ in mapped.iter_rows():
                    progress.update(task, advance=1, note="")
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            raise StageError(
                f"train: a worker that runs frozen encoders failed: {str(cause).strip().splitlines()[-1]:.300}",
                "Run the same command again: finished parts are kept.",
            ) from error
    for side in SIDES:
        for modality in modalities:
            parts = sorted((folder / f"{side}_{modality}").glob("*.npy"))
            held = [part for part in map(np.load, parts) if len(part)]
            if held:
                np.save(folder / f"{side}_{modality}.npy", np.concatenate(held))
            shutil.rmtree(folder / f"{side}_{modality}")
