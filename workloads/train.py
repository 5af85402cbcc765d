"""`fuserank train`: encoders, fusion and recommender together under the weighted loss, on Ray Train.

Reads preprocess/ and pretrain/; writes train/model/ (config.json, model.safetensors), train/history.jsonl and
train/model_card.md.
"""

import shutil
from pathlib import Path

from fuserank.artifacts import run_stage, stage_folder
from fuserank.config import Experiment
from workloads.encoding import encode_frozen
from workloads.model_card import write_card
from workloads.progress import follow, say
from workloads.trainer import run_trainer


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest."""

    def work(folder: Path) -> dict:
        from fuserank.training.worker import train_worker  # torch: only when there is work

        values = {
            "experiment": experiment.model_dump(mode="json"),
            "preprocess": str(stage_folder(experiment, "preprocess")),
            "pretrain": str(stage_folder(experiment, "pretrain") / "checkpoint"),
            "out": str(folder),
        }
        if frozen := tuple(m for m, encoder in experiment.encoders if getattr(encoder, "adaptation", "") == "frozen"):
            values |= {"frozen": frozen, "cache": str(encode_frozen(experiment, frozen))}
        with follow(folder, "train"):
            metrics = run_trainer(train_worker, values, folder, experiment.train, workers=experiment.train.workers)
        shutil.rmtree(folder / "model", ignore_errors=True)
        shutil.copytree(folder / "checkpoint" / "model", folder / "model")
        write_card(experiment, stage_folder(experiment, "preprocess"), folder, metrics)
        counts = metrics["parameters"]["all"]
        say(f"train: {counts['trained']:,} of {counts['total']:,} parameters trained; card: {folder / 'model_card.md'}")
        return metrics

    return run_stage(experiment, "train", work, say=say)
