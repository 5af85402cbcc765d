"""`fuserank evaluate --against RUN`: this run beside another one on the same queries.

Reads evaluate/ of both runs. Writes evaluate/against/‹run›.json and ‹run›.html.
"""

import re
from pathlib import Path

from rich.table import Table

from fuserank.artifacts import stage_folder, write_json
from fuserank.config import Experiment
from fuserank.errors import EvaluationError
from fuserank.evaluation import sections
from fuserank.evaluation.against import compare_runs, open_evaluated
from fuserank.evaluation.words import short, title
from workloads.progress import console, say

FOLDER = "against"


def run(experiment: Experiment, other: str) -> dict:
    """Compare with the run of that name below the storage root, or with the run's folder; returns what is written.

    Raises:
        EvaluationError: there is no such run, it was asked something else, or it is this one.
    """
    mine = stage_folder(experiment, "evaluate")
    theirs = _folder(experiment, other)
    if theirs.resolve() == mine.resolve():
        raise EvaluationError(f"{other} is the run itself.", "Name another run.")
    found = compare_runs(open_evaluated(mine), open_evaluated(theirs), experiment.evaluate.bootstrap, experiment.seed)
    (mine / FOLDER).mkdir(exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found["against"])
    write_json(mine / FOLDER / f"{name}.json", found)
    page = mine / FOLDER / f"{name}.html"
    page.write_text(sections.comparison(found), encoding="utf-8")
    _show(found)
    say(f"evaluate: {page}")
    return found


def _folder(experiment: Experiment, other: str) -> Path:
    """The other run's evaluate/."""
    for run_folder in (Path(experiment.storage.root) / other, Path(other)):
        if (run_folder / "evaluate").is_dir():
            return run_folder / "evaluate"
    raise EvaluationError(
        f"there is no evaluated run {other!r}, neither below {experiment.storage.root} nor as a folder.",
        "Give a run's name or folder; run `fuserank evaluate` with its config first.",
    )


def _show(found: dict) -> None:
    for reason in found["left_out"]:
        say(f"evaluate: not compared – {reason}")
    for variant, systems in found["variants"].items():
        table = Table("system", "metric", found["run"], found["against"], "difference", "95 % interval", "p (Holm)")
        table.title = variant
        for system, metrics in systems.items():
            for metric, row in metrics.items():
                if row["low"] is None:
                    continue
                numbers = [f"{row[side]:.3f}" for side in ("ours", "theirs")]
                bounds = f"{row['low']:+.3f} – {row['high']:+.3f}"
                table.add_row(
                    short(system), title(metric), *numbers, f"{row['mean']:+.3f}", bounds, f"{row['p_holm']:.3f}"
                )
        console.print(table)
