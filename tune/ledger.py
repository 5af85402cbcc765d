"""Trials as they finish, one JSON line each in trials.jsonl, which outlives a killed driver.

Each line is on the disk before the search counts on it, so a trial that is read here never runs again.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuserank.errors import StageError

FILE = "trials.jsonl"


@dataclass(frozen=True)
class Trial:
    """One finished trial."""

    number: int
    params: dict[str, Any]
    score: float | None  # higher is better; None where it failed with `error`
    seconds: float | None  # its own, without the start of its process
    error: str | None = None
    stopped: int | None = None  # after so many epochs, because it could not win any more
    history: list[float] = field(default_factory=list)  # best score after each epoch
    cost: float | None = None  # work of one query, where the search minimises it

    @property
    def complete(self) -> bool:
        """Neither failed nor stopped: one that may win."""
        return self.score is not None and self.stopped is None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def append(file: Path, trial: Trial) -> None:
    """Put one trial on the disk."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(trial.as_dict()) + "\n")
        out.flush()
        os.fsync(out.fileno())


def read(file: Path) -> dict[int, Trial]:
    """Finished trials by number, in the order of numbers."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text and not text.endswith("\n"):  # a line cut off by a kill: that trial runs again, on a line of its own
        text = text[: text.rfind("\n") + 1]
        file.write_text(text, encoding="utf-8")
    found: dict[int, Trial] = {}
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            trial = Trial(**json.loads(line))
            found[trial.number] = trial
    return dict(sorted(found.items()))


def best(trials: list[Trial]) -> Trial:
    """The complete trial with the highest score; of equal ones the earliest.

    Raises:
        StageError: none is complete; the message holds the first reason.
    """
    able = [trial for trial in trials if trial.complete]
    if not able:
        reason = next((trial.error for trial in trials if trial.error), "none ran")
        raise StageError(f"all {len(trials)} trials failed; the first: {reason}")
    return max(able, key=lambda trial: (trial.score or 0.0, -trial.number))
