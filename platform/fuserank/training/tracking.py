"""Training curves: one JSON line an epoch (history.jsonl), and TensorBoard where switched on."""

import json
from pathlib import Path


class Tracker:
    """Appends metrics of each epoch to `folder/history.jsonl` and to TensorBoard's event file beside it."""

    def __init__(self, folder: Path, name: str, tensorboard: bool):
        self.file = folder / "history.jsonl"
        self.name = name
        self.writer = None
        folder.mkdir(parents=True, exist_ok=True)
        if tensorboard:
            from tensorboardX import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard" / name))

    def log(self, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """One finished epoch (counted from 1)."""
        line = {"task": self.name, "epoch": epoch, "epochs": epochs, **{k: round(v, 6) for k, v in metrics.items()}}
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for key, value in metrics.items():
                self.writer.add_scalar(f"{self.name}/{key}", value, epoch)
            self.writer.flush()

    def close(self) -> None:
        """Flush and close TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()
