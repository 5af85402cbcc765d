"""Many configurations and seeds through the real stages, one after the other; resumable, one JSON a cell.

python benchmarks/matrix --data DIR [--part sequences] [--model FOLDER] [--runs DIR] [--out DIR] [--only TEXT]
                         [--set KEY=VALUE]

Two parts: `fusion` (encoders, fusions, adaptations) and `sequences` (recommendation from behaviour logs alone). DIR
holds the public data sets (fashion/, intents/, voice/, sequences/), FOLDER a saved all-MiniLM-L6-v2. A cell whose data
is not there is left out. One whose JSON is there is not run again; one that failed is, and the others go on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import catalogues
from cells import FINALISTS, FUSIONS, MODEL, Cell, first, further, next_products
from rich.console import Console
from rich.table import Table
from zero_shot import measure_zero_shot

from fuserank import config
from fuserank.artifacts import stage_path
from fuserank.evaluation.slices import ALL

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"banking77": "intents", "digits": "voice"}
STAGES = ("preprocess", "pretrain", "train", "index", "evaluate")
console = Console()


class Matrix:
    """Where cells are run and their results kept."""

    def __init__(self, data: Path, runs: Path, out: Path, model: str | None, further: list[str]):
        """further: settings that change no result, such as train.cpus_per_worker=1."""
        self.data, self.runs, self.out, self.model, self.further = data, runs, out, model, further
        for folder in (runs, out):
            folder.mkdir(parents=True, exist_ok=True)

    def file(self, cell: Cell) -> Path:
        kept = "".join(letter if letter.isalnum() else "-" for letter in cell.name)
        return self.out / f"{kept}.json"

    def has_data(self, cell: Cell) -> bool:
        """Whether the public data that the cell is made of is there."""
        folder = self.data / SOURCES.get(cell.data, cell.data)
        if not folder.is_dir():
            console.print(f"left out, because {folder} is not there: {cell.name}")
        return folder.is_dir()

    def known(self, cell: Cell) -> dict | None:
        """The cell's result, unless its settings have changed since."""
        if not self.file(cell).is_file():
            return None
        found = json.loads(self.file(cell).read_text(encoding="utf-8"))
        return found if found["cell"] == json.loads(json.dumps(asdict(cell))) and "error" not in found else None

    def sets(self, cell: Cell) -> dict:
        """Every setting of a cell."""
        own = {key: self.model if value == MODEL else value for key, value in cell.sets.items()}
        found = {**own, "name": cell.run, "seed": cell.seed, "storage.root": str(self.runs)}
        if cell.data:
            found["records.root"] = str(self._shop(cell.data))
        if cell.start is not None:
            found["train.start"] = str(self.runs / "models" / cell.start)
        return found

    def _shop(self, name: str) -> Path:
        """The folder of a data set; some are written as a shop first."""
        make = getattr(catalogues, name, None)
        if make is None:
            return self.data / name
        folder = self.runs / "shops" / name
        if not (folder / "queries.jsonl").is_file():
            make(self.data, folder)
        return folder

    def run(self, cell: Cell) -> dict:
        """The cell's result, from its file or by running it now."""
        if (found := self.known(cell)) is not None:
            return found
        console.print(f"[bold]{cell.name}")
        begin, found = time.monotonic(), {"cell": asdict(cell), "date": time.strftime("%Y-%m-%d")}
        try:
            found |= self._measure(cell)
        except RuntimeError as error:  # shown, and tried again by the next call
            found["error"] = str(error)[-2000:]
            console.print(f"[red]{cell.name} failed: {error}"[-600:])
        found["seconds"] = round(time.monotonic() - begin, 1)
        self.file(cell).write_text(json.dumps(found, indent=1), encoding="utf-8")
        return found

    def _measure(self, cell: Cell) -> dict:
        sets = self.sets(cell)
        stages = STAGES[:2] if cell.zero_shot else STAGES
        if cell.config == "demo.yaml":
            stages = ("generate", *stages)
        for stage in stages:
            self._stage(stage, cell, sets)
        experiment = config.load(_config(cell), [f"{key}={json.dumps(value)}" for key, value in sets.items()])
        if cell.zero_shot:
            return measure_zero_shot(experiment)
        model = self.runs / "models" / cell.row
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(stage_path(experiment, "train") / "model", model)
        manifest = json.loads((stage_path(experiment, "train") / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads((stage_path(experiment, "evaluate") / "metrics.json").read_text(encoding="utf-8"))
        variants = {
            variant: {
                part: {"systems": slices["systems"], "differences": slices["differences"]}
                for part, slices in values["slices"].items()
            }
            for variant, values in metrics["variants"].items()
        }
        if (users := metrics["recommendation"]) is not None:
            variants["recommendation"] = {ALL: users["slices"][ALL]}
        trained = {"validation": manifest["summary"]["best"], "parameters": manifest["summary"]["parameters"]["all"]}
        return {**trained, "train_seconds": manifest["seconds"], "run": metrics["run"], "variants": variants}

    def _stage(self, stage: str, cell: Cell, sets: dict) -> None:
        line = [sys.executable, "-m", "workloads", stage, "-c", str(_config(cell))]
        line += [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        line += [f"--set={setting}" for setting in self.further]
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
        done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{stage}: {(done.stdout + done.stderr)[-1500:]}")
        console.print(f"  {stage}: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ''}"[:150])


def _config(cell: Cell) -> Path:
    own = Path(__file__).parent / cell.config
    return own if own.is_file() else ROOT / "workloads" / "configs" / cell.config


def finalists(results: list[dict]) -> list[str]:
    """Fusion kinds, the best on validation first."""
    scores = {r["cell"]["sets"]["fusion.kind"]: r["validation"] for r in results if "fusion" in r["cell"]["row"]}
    return sorted(scores, key=lambda kind: (-scores[kind], FUSIONS.index(kind)))[:FINALISTS]


COLUMNS = {"recommendation": ("popularity", "neighbours", "recommender", "recommended")}
SEARCHED = ("bm25", "text", "image", "audio", "late", "fused")
"""Systems shown, the last with its interval."""


def show(results: list[dict]) -> None:
    """Every cell's own system beside its baselines."""
    for variant in sorted({name for r in results for name in r.get("variants", {})}):
        shown = COLUMNS.get(variant, SEARCHED)
        table = Table("cell", "metric", *shown, "95 %", "trained", title=variant)
        for result in results:
            if variant not in result.get("variants", {}):
                continue
            systems = result["variants"][variant][ALL]["systems"]
            for metric in list(next(iter(systems.values())))[: 2 if variant in COLUMNS else 1]:
                row = [f"{systems[s][metric]['mean']:.4f}" if s in systems else "" for s in shown]
                own = systems[shown[-1]][metric]
                trained = f"{result.get('parameters', {}).get('trained', 0):,}"
                table.add_row(Cell(**result["cell"]).name, metric, *row, f"{own['low']:.4f}–{own['high']:.4f}", trained)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("fusion", "sequences"), default="fusion")
    parser.add_argument("--model", help="folder of a saved text encoder")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "matrix")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "matrix")
    parser.add_argument("--only", default="", help="cells whose name holds this text")
    parser.add_argument("--set", action="append", default=[], help="a setting that changes no result")
    options = parser.parse_args()
    matrix = Matrix(options.data.resolve(), options.runs.resolve(), options.out.resolve(), options.model, options.set)
    cells = next_products() if options.part == "sequences" else first(matrix.data, options.model is not None)
    results = [matrix.run(c) for c in cells if options.only in c.name and matrix.has_data(c)]
    if options.part == "fusion" and not any("error" in result for result in results):
        ranked = [r for r in results if r["cell"]["row"].startswith("fashion fusion")]
        more = further(finalists(ranked) if len(ranked) == len(FUSIONS) else [])
        results += [matrix.run(c) for c in more if options.only in c.name and matrix.has_data(c)]
    show(results)
    if any("error" in result for result in results):
        sys.exit("some cells failed; run the same command again to repeat them.")


if __name__ == "__main__":
    main()
