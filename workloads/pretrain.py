"""`fuserank pretrain`: self-supervised start of the text and image encoders, on Ray Train.

Reads preprocess/; writes pretrain/checkpoint/<modality>.safetensors and pretrain/history.jsonl.
"""

from pathlib import Path

from fuserank.artifacts import run_stage, stage_folder
from fuserank.config import Experiment
from workloads.progress import follow, say
from workloads.trainer import run_trainer


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest."""

    def work(folder: Path) -> dict:
        tasks = [
            m for m in ("text", "image") if getattr(experiment.pretrain, m).epochs and getattr(experiment.encoders, m)
        ]
        if not tasks:
            (folder / "checkpoint").mkdir(exist_ok=True)
            return {"encoders": []}
        from fuserank.training.selfsupervised import pretrain_worker  # torch: only when there is work

        values = {
            "experiment": experiment.model_dump(mode="json"),
            "preprocess": str(stage_folder(experiment, "preprocess")),
            "out": str(folder),
        }
        with follow(folder, "pretrain"):
            metrics = run_trainer(pretrain_worker, values, folder, experiment.train, workers=1)
        return {"encoders": tasks, **metrics}

    return run_stage(experiment, "pretrain", work, say=say)
