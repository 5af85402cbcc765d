"""Progress bars for training that runs in other processes: follows the history.jsonl a Tracker writes."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """One line to the person at the terminal."""
    console.print(message)


def bar() -> Progress:
    """The look of every progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console)


def _note(line: dict) -> str:
    shown = {k: v for k, v in line.items() if k not in ("task", "epoch", "epochs")}
    first = [k for k in shown if k == "loss" or k.endswith("_loss") or k == "ndcg@10"]
    return " ".join(f"{k} {shown[k]:.3f}" for k in first)


@contextlib.contextmanager
def follow(folder: Path, what: str) -> Iterator[None]:
    """Show epochs as they are logged to `folder/history.jsonl` for the length of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(folder / "history.jsonl", what, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _watch(file: Path, what: str, stop: threading.Event) -> None:
    position = file.stat().st_size if file.exists() else 0
    with bar() as progress:
        task = progress.add_task(what, total=None, note="starting workers")
        ended = False
        while not ended:
            ended = stop.wait(0.3)
            if not file.exists():
                continue
            with file.open(encoding="utf-8") as lines:
                lines.seek(position)
                text = lines.read()
            whole, _, _ = text.rpartition("\n")
            position += len(whole.encode()) + 1 if whole else 0
            for line in map(json.loads, whole.splitlines()):
                progress.update(
                    task, description=line["task"], total=line["epochs"], completed=line["epoch"], note=_note(line)
                )
