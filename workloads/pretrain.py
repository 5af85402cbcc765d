"""`fuserank pretrain`: self-supervised start of encoders, projections and recommender, on Ray Train.

Reads preprocess/; writes pretrain/checkpoint/<part>.safetensors and pretrain/history.jsonl.
"""

from pathlib import Path

from fuserank.artifacts import run_stage, stage_folder
from fuserank.config import Experiment
from workloads.progress import follow, say
from workloads.trainer import run_trainer


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest."""

    def work(folder: Path) -> dict:
        tasks = [name for name, task in experiment.pretrain if task.epochs]
        if not tasks:
            (folder / "checkpoint").mkdir(exist_ok=True)
            return {"tasks": []}
        from fuserank.training.pretraining.worker import pretrain_worker  # torch: only when there is work

        values = {
            "experiment": experiment.model_dump(mode="json"),
            "preprocess": str(stage_folder(experiment, "preprocess")),
            "out": str(folder),
        }
        with follow(folder, "pretrain"):
            metrics = run_trainer(pretrain_worker, values, folder, experiment.train, experiment.train.workers)
        return {"tasks": tasks, **metrics}

    return run_stage(experiment, "pretrain", work, say=say)
