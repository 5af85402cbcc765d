"""Training curves: one JSON line an epoch (history.jsonl), and beside it the trackers the config switches on.

A tracker is anything with `log` and `close`; TensorBoard comes with fuserank, MLflow and Weights & Biases with the
extras of their names.
"""

import importlib
import json
from pathlib import Path
from typing import Any, Protocol

from fuserank.config import Tracking
from fuserank.errors import ConfigError


class Sink(Protocol):
    """Where metrics go besides history.jsonl."""

    def log(self, metrics: dict[str, float], epoch: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files under `folder`/tensorboard/`name`."""

    def __init__(self, folder: Path, name: str, settings: Tracking):
        from tensorboardX import SummaryWriter

        self.name, self.writer = name, SummaryWriter(str(folder / "tensorboard" / name))

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        for key, value in metrics.items():
            self.writer.add_scalar(f"{self.name}/{key}", value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment "fuserank" on the tracking server of `tracking.mlflow`."""

    def __init__(self, folder: Path, name: str, settings: Tracking):
        mlflow = _extra("mlflow", "mlflow")
        self.client = mlflow.MlflowClient(tracking_uri=settings.mlflow)
        known = self.client.get_experiment_by_name("fuserank")
        place = known.experiment_id if known else self.client.create_experiment("fuserank")
        self.run = self.client.create_run(place, run_name=f"{folder.parent.name}/{name}").info.run_id

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        for key, value in metrics.items():
            self.client.log_metric(self.run, key.replace("@", "_at_"), value, step=epoch)  # "@" is not allowed there

    def close(self) -> None:
        self.client.set_terminated(self.run)


class WandB:
    """A run of the project `tracking.wandb`; without a network set WANDB_MODE=offline."""

    def __init__(self, folder: Path, name: str, settings: Tracking):
        wandb = _extra("wandb", "wandb")
        self.run: Any = wandb.init(
            project=settings.wandb, name=f"{folder.parent.name}/{name}", dir=str(folder), reinit="create_new"
        )

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        self.run.log(metrics, step=epoch)

    def close(self) -> None:
        self.run.finish()


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"tracking.{extra} is set, but {extra} is not installed.", f"pip install 'fuserank[{extra}]'"
        ) from error


class Tracker:
    """Appends metrics of each epoch to `folder/history.jsonl` and to every sink that `settings` asks for."""

    def __init__(self, folder: Path, name: str, settings: Tracking):
        """
        Raises:
            ConfigError: a tracker's package is not installed.
        """
        self.file, self.name = folder / "history.jsonl", name
        folder.mkdir(parents=True, exist_ok=True)
        wanted = ((settings.tensorboard, TensorBoard), (settings.mlflow, MLflow), (settings.wandb, WandB))
        self.sinks: list[Sink] = [sink(folder, name, settings) for on, sink in wanted if on]

    def log(self, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """One finished epoch (counted from 1)."""
        line = {"task": self.name, "epoch": epoch, "epochs": epochs, **{k: round(v, 6) for k, v in metrics.items()}}
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        for sink in self.sinks:
            sink.log(metrics, epoch)

    def close(self) -> None:
        """Flush and end every sink."""
        for sink in self.sinks:
            sink.close()
