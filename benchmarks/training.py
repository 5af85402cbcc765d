"""Training under Ray Train against a bare PyTorch loop on the same model and data; cached against recomputed encoders.

Products a second of whole epochs (encoders, bank, fusion, recommender; no validation), each side in a process of its
own, in one run on one machine; median of `--repeat`, sides taking turns, ratios of neighbours in time, because machines
that are shared move by a fifth between minutes. The bare loop has torch's own dropout, no
checkpoints, no tracking and no Ray. Frozen encoders are measured at the demo's size, where they cost little, and at the
size people freeze (MiniLM's six layers of 384, ResNet-50 on 224 × 224; weights do not matter for time).

Run: `python benchmarks/training.py [--quick] [--json FILE]`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fuserank import config
from fuserank.artifacts import stage_folder
from fuserank.losses.weighted import weighted_sum
from fuserank.training.cached import SIDES, build_cache, open_overlay
from fuserank.training.encode import autocast
from fuserank.training.loop import run_epoch
from fuserank.training.session import Session
from fuserank.training.splits import open_splits
from fuserank.training.start import adapt_encoders, new_model
from fuserank.training.supervised import Supervised, new_fit
from workloads import generate, preprocess, pretrain
from workloads.cluster import connect
from workloads.trainer import run_trainer

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
FROZEN = ("text", "image")
LARGE = {
    "name": "large",
    "records.generate.products": 200,
    "train.epochs": 2,
    "preprocess.image_size": [224, 224],
    "encoders.text.layers": 6,
    "encoders.text.hidden": 384,
    "encoders.text.heads": 12,
    "encoders.image.model": "resnet50",
}


def experiment_of(root: str, quick: bool, large: bool = False) -> config.Experiment:
    sets: dict[str, Any] = {
        "storage.root": root,
        "records.generate.speech": False,
        "records.generate.products": 400 if quick else 1200,
        "pretrain.text.epochs": 0,
        "pretrain.image.epochs": 0,
        "train.epochs": 2 if quick else 3,
    } | (LARGE if large else {})
    return config.update(config.load(ROOT / "workloads" / "configs" / "demo.yaml", []), sets)


def job_of(experiment: config.Experiment, device: torch.device = CPU, cache: Path | None = None) -> tuple[Any, Any]:
    torch.manual_seed(experiment.seed)
    folder = stage_folder(experiment, "preprocess")
    model = new_model(experiment, folder, None)
    events = experiment.encoders.recommender.events if experiment.encoders.recommender else 0
    sides = [open_overlay(folder, cache, side, FROZEN) if cache else None for side in SIDES]
    splits = open_splits(folder, model.modalities, events, *sides)
    steps = experiment.train.epochs * splits.train.steps(experiment.train.batch_size)
    adaptations = adapt_encoders(model, experiment.encoders, steps)
    job = Supervised(model, splits, experiment, device, adaptations=adaptations)
    return job, new_fit(job.objective, experiment.train, steps)


def bare(experiment: config.Experiment) -> float:
    """A plain loop: products a second after the first epoch."""
    job, fit = job_of(experiment)
    seconds = 0.0
    for epoch in range(experiment.train.epochs):
        begin = time.perf_counter()
        job.objective.train()
        for batch, table, dropped in job.batches(epoch):
            batch.products.keys = batch.queries.keys = None  # torch's own dropout
            with autocast(CPU):
                total = weighted_sum(job.objective(batch, table, dropped), job.weights)
            fit.optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(job.objective.parameters(), experiment.train.clip)
            fit.optimizer.step()
            fit.schedule.step()
        seconds += (time.perf_counter() - begin) if epoch else 0.0
    return len(job.splits.train.product_rows) * (experiment.train.epochs - 1) / seconds


def epochs(job: Any, fit: Any, options: config.Train, after_step: Any = None) -> float:
    """Our loop: products a second after the first epoch."""
    seconds = 0.0
    while fit.epoch < options.epochs:
        first, begin = fit.epoch == 0, time.perf_counter()
        run_epoch(fit, job.batches(fit.epoch), job.weights, job.device, options.precision, options.clip, after_step)
        seconds += 0.0 if first else time.perf_counter() - begin
    return len(job.splits.train.product_rows) * (options.epochs - 1) / seconds


def timed_worker(values: dict[str, Any]) -> None:
    """What a Ray Train worker runs: the loop with its sharing, spreading and looks at the clock for checkpoints."""
    experiment = config.validate(values["experiment"])
    session = Session(experiment.train.checkpoint_seconds)
    job, fit = job_of(experiment, session.device)
    fit.module, fit.sharded = session.spread(job.objective, job.model.encoders, experiment.train.strategy)
    speed = epochs(job, fit, experiment.train, lambda: session.due())
    session.report({"speed": speed}, lambda folder: (folder / "nothing").touch())


def ours(experiment: config.Experiment) -> float:
    with connect(), tempfile.TemporaryDirectory() as folder:
        values = {"experiment": experiment.model_dump(mode="json")}
        return run_trainer(timed_worker, values, Path(folder), experiment.train, 1)["speed"]


def frozen(experiment: config.Experiment, cached: bool) -> float:
    """Text and image encoders stand still: run again at every step, or once beforehand (not counted)."""
    sets = {f"encoders.{m}.adaptation": "frozen" for m in FROZEN}
    sets |= {"train.bank": 0, "loss.weights.recommend": 0.0, "encoders.audio": None}
    chosen = config.update(experiment, sets)
    if not cached:
        return epochs(*job_of(chosen), chosen.train)
    with tempfile.TemporaryDirectory() as folder:
        build_cache(chosen, Path(folder))
        return epochs(*job_of(chosen, cache=Path(folder)), chosen.train)


def measured(side: str, root: str, quick: bool) -> float:
    experiment = experiment_of(root, quick, large="large" in side)
    if "frozen" in side:
        return frozen(experiment, cached="cached" in side)
    return bare(experiment) if side == "bare loop" else ours(experiment)


SIDES_OF = (
    "bare loop",
    "Ray Train, as `train` runs it",
    "small frozen encoders, run at every step",
    "small frozen encoders, cached outputs",
    "large frozen encoders, run at every step",
    "large frozen encoders, cached outputs",
)


def measure(side: str, root: str, quick: bool) -> float:
    line = [sys.executable, __file__, "--side", side, "--root", root, *(["--quick"] if quick else [])]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    run = subprocess.run(line, env=env, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr[-3000:])
    return json.loads(run.stdout.splitlines()[-1])["speed"]


def ratio(found: dict[str, list[float]], above: str, below: str) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"speed": measured(options.side, options.root, options.quick)}))
        return
    repeat = 1 if options.quick else options.repeat
    with tempfile.TemporaryDirectory() as root:
        with connect():
            for stage in (generate, preprocess, pretrain):
                for large in (False, True):
                    stage.run(experiment_of(root, options.quick, large))
        found: dict[str, list[float]] = {side: [] for side in SIDES_OF}
        for _ in range(repeat):
            for side in SIDES_OF:
                found[side].append(measure(side, root, options.quick))
                print(f"{side}: {found[side][-1]:,.1f} products/s", flush=True)
    table = Table("side", "products/s (median)", "min–max")
    middle = {side: statistics.median(speeds) for side, speeds in found.items()}
    for side, speeds in found.items():
        table.add_row(side, f"{middle[side]:,.0f}", f"{min(speeds):,.0f}–{max(speeds):,.0f}")
    Console().print(table)
    plain, trained, small, small_cached, large, large_cached = SIDES_OF
    figures = {"ratio_vs_bare": ratio(found, trained, plain), "cached_speedup": ratio(found, large_cached, large)}
    figures |= {"cached_speedup_small_encoders": ratio(found, small_cached, small)}
    figures |= {"bare_products_s": middle[plain], "ours_products_s": middle[trained]}
    print(" · ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
