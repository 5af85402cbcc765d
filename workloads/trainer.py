"""Runs one worker function under Ray Train and brings its last checkpoint home; used by `pretrain` and `train`.

A run folder that already holds checkpoints is resumed by Ray Train, which is how an interrupted stage goes on.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuserank.config import Train
from fuserank.errors import StageError

# Ray Train calls the worker function in a thread, and glibc hands memory of threads back to the system at every step:
# keeping it saves those page faults. (One arena for all threads saves more of them and costs a quarter of the speed:
# threads that allocate wait for one another.) Threads of OpenMP that wait give the core away after a fifth of a
# millisecond, not after three: on a machine with other work these spins made a step take five times as long
# (docs/EXPERIMENTS.md, 2026-11-26 and -27).
WORKER = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "GOMP_SPINCOUNT": "20000",
}


def run_trainer(
    worker: Callable[[dict], None], values: dict[str, Any], folder: Path, train: Train, workers: int
) -> dict:
    """Train and copy the last checkpoint to `folder/checkpoint`.

    Returns:
        The last reported metrics.

    Raises:
        StageError: the workers failed more often than train.max_failures allows.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": float(train.cpus_per_worker)} | ({"GPU": 1.0} if train.gpu else {})
    trainer = TorchTrainer(
        worker,
        train_loop_config=values,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=train.gpu, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if train.gpu else "gloo"),
        run_config=RunConfig(
            name="trainer",
            storage_path=str(folder),
            worker_runtime_env={"env_vars": WORKER},
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        cause = str(getattr(error, "worker_failures", None) or error)
        raise StageError(
            f"training failed: {cause[-600:]}",
            "The last checkpoint is kept: run the same command again to go on from it.",
        ) from error
    if result.checkpoint is None:
        raise StageError("training ended without a checkpoint.", "Raise train.epochs to at least 1.")
    target = folder / "checkpoint"
    shutil.rmtree(target, ignore_errors=True)
    result.checkpoint.to_directory(str(target))
    return dict(result.metrics or {})
