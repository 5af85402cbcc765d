"""What the search is worth on the generated shop, and what it costs beside the training of its trials.

python benchmarks/search.py [--runs DIR] [--trials N] [--epochs N] [--json FILE] [--quick]   winner against two others
python benchmarks/search.py --overhead …                                                     a search of 16 trials

The winner of a search (TPE, asynchronous halving) is held against uniform loss weights (all 1) and the median of
as many random trials, which run to their end. All choosing is done on the validation split. Then each of the three is
trained with three seeds on the same cached encoder outputs, and every query of the test split is ranked once, over the
full catalogue; the differences are paired by query, of each query the mean over seeds. Every step leaves its result on
disk: the same command goes on where it was interrupted. Loss weights are relative to `fused`, which is 1.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT)]

from fuserank import config  # noqa: E402
from fuserank.artifacts import stage_folder, write_json  # noqa: E402
from fuserank.config import Experiment  # noqa: E402
from fuserank.evaluation import plots  # noqa: E402
from fuserank.evaluation.intervals import interval, paired_difference  # noqa: E402
from tune.front import chosen, front, importance  # noqa: E402
from tune.ledger import Trial  # noqa: E402
from tune.search import search  # noqa: E402
from workloads import generate, preprocess, pretrain  # noqa: E402
from workloads.cluster import connect  # noqa: E402
from workloads.progress import say  # noqa: E402
from workloads.trials import CachedTraining, fill_cache, trial_settings  # noqa: E402
from workloads.tune import plan_of  # noqa: E402

SEEDS = (0, 1, 2)
UNIFORM = {f"loss.weights.{name}": 1.0 for name in ("text", "image", "audio", "price", "attributes", "align")}
console = Console(highlight=False)


def prepared(options: argparse.Namespace) -> tuple[Experiment, Path]:
    """The generated shop up to `pretrain`, and the folder of the benchmark with the cache in it."""
    sets = {"storage.root": str(options.runs.resolve()), "tune.epochs": options.epochs, "tune.trials": options.trials}
    if options.quick:
        sets |= {"records.generate.products": 240, "records.generate.queries": 200, "records.generate.speech": False}
        sets |= {"pretrain.text.epochs": 1, "pretrain.image.epochs": 1, "name": "quick"}
    experiment = config.update(config.load(ROOT / "workloads" / "configs" / "demo.yaml"), sets)
    for stage in (generate, preprocess, pretrain):
        stage.run(experiment)
    folder = experiment.run / "search"
    folder.mkdir(exist_ok=True)
    return experiment, folder


def timed(experiment: Experiment, folder: Path) -> tuple[list[Trial], dict[str, Any]]:
    """Search, or what is left of it; what it took, where it ran in one piece."""
    begin, known = time.monotonic(), (folder / "trials.jsonl").is_file()
    plan = plan_of(experiment, fill_cache(experiment, folder))
    cached = time.monotonic()
    settings = trial_settings(experiment)
    trials = search(CachedTraining(folder, experiment), plan, folder, say=say, **settings)
    end, file = time.monotonic(), folder / "took.json"
    if not known:
        training = sum(trial.seconds or 0.0 for trial in trials)
        ideal = training / settings["concurrent"]
        took = {
            "trials": len(trials),
            "stopped": sum(trial.stopped is not None for trial in trials),
            "at_once": settings["concurrent"],
            "training_s": round(training, 1),
            "search_s": round(end - cached, 1),
            "cache_s": round(cached - begin, 1),
            "overhead": round((end - cached) / ideal, 3),
            "overhead_with_cache": round((end - begin) / ideal, 3),
        }
        write_json(file, took)
    return trials, json.loads(file.read_text()) if file.is_file() else {}


def train_cells(experiment: Experiment, folder: Path, candidates: dict[str, dict]) -> dict[str, list[Path]]:
    """Weights of each candidate with each seed; those that are there are not trained again."""
    import ray

    @ray.remote(num_cpus=1, max_retries=2)
    def fit(values: dict[str, Any], file: str) -> float:
        from fuserank.training.cached import train_on_cache

        score = train_on_cache(folder / "cache", values, lambda epoch, score: None, Path(file).with_suffix(".new"))
        Path(file).with_suffix(".new").rename(file)
        return score

    files, running = {}, []
    for name, params in candidates.items():
        files[name] = [folder / "finals" / f"{name}-{seed}.safetensors" for seed in SEEDS]
        for seed, file in zip(SEEDS, files[name], strict=True):
            if not file.is_file():
                values = config.update(experiment, {**params, "seed": seed}).model_dump(mode="json")
                running.append(fit.remote(values, str(file)))
    if running:
        console.print(f"training {len(running)} of {len(candidates) * len(SEEDS)}")
    ray.get(running)
    return files


def test_scores(experiment: Experiment, folder: Path, params: dict, weights: Path) -> np.ndarray:
    """nDCG@10 [Q] of the fused score for each query of the test split, over the full catalogue."""
    import pyarrow.parquet as pq
    import torch

    from fuserank.evaluation.metrics import rank_metrics
    from fuserank.models.checkpoint import load_weights
    from fuserank.training.cached import headless, open_cache
    from fuserank.training.encode import encode_table
    from fuserank.training.splits import open_splits

    cpu, products, queries = torch.device("cpu"), *(open_cache(folder / "cache", side) for side in ("product", "query"))
    model = headless(config.update(experiment, params), products)
    load_weights(model, weights)
    preprocess = stage_folder(experiment, "preprocess")
    splits = open_splits(preprocess, model.modalities, 0, products, queries)
    split = pq.read_table(preprocess / "queries.parquet", columns=["split"])["split"].to_pylist()
    asked, rows = np.flatnonzero(np.array(split) == "evaluation"), np.arange(len(products.ids))
    vectors, mask = encode_table(model.eval(), products, rows, splits.columns, "product", cpu)
    query, query_mask = encode_table(model, queries, asked, splits.columns, "query", cpu)
    with torch.inference_mode():
        scores = model.query_vectors(query, query_mask) @ model.product_vectors(vectors, mask).T
    return rank_metrics(scores.float().numpy(), splits.train.judgments.matrix(asked, rows))["ndcg@10"]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Winner, uniform weights and the median random trial on the test split."""
    from workloads.query_time import measure

    experiment, folder = prepared(options)
    trials, took = timed(experiment, folder)
    space = plan_of(experiment, folder / "cache").space
    luck = config.update(experiment, {"tune.algorithm": "random", "tune.stop.kind": "none", "seed": 1})
    other = folder / "random"
    other.mkdir(exist_ok=True)
    if not (other / "cache").exists():
        (other / "cache").symlink_to(folder / "cache")  # the same outputs
    plan = plan_of(luck, folder / "cache", points=False)
    drawn = search(CachedTraining(other, luck), plan, other, say=say, **trial_settings(luck))
    latency = measure(experiment, folder, trials)
    winner, line, shares = chosen(trials, latency), front(trials, latency), importance(trials, space)
    ranked = sorted((t for t in drawn if t.complete), key=lambda t: t.score or 0.0)
    median = ranked[(len(ranked) - 1) // 2]
    candidates = {"winner": winner.params, "uniform": UNIFORM, "random": median.params}
    files = train_cells(experiment, folder, candidates)
    measured = {  # the test split is read here and nowhere else
        name: np.stack([test_scores(experiment, folder, candidates[name], file) for file in found])
        for name, found in files.items()
    }
    means = {name: np.mean(values, axis=0) for name, values in measured.items()}
    places = [trial for trial in trials if trial.number in latency and trial.complete]
    points = [(latency[trial.number], trial.score or 0.0) for trial in places]
    kinds = [str(trial.params["fusion.kind"]) for trial in places]
    marks = [places.index(trial) for trial in line]
    if options.json is not None:
        png = plots.front(points, kinds, marks, places.index(winner))
        options.json.with_name(f"{options.json.stem}_front.png").write_bytes(png)
    return {
        "took": took,
        "winner": winner.as_dict(),
        "median_random": median.as_dict(),
        "validation": {"winner": winner.score, "present": trials[0].score, "median_random": median.score},
        "test": {name: interval(values).as_dict() for name, values in means.items()},
        "test_by_seed": {name: [round(float(np.nanmean(v)), 4) for v in found] for name, found in measured.items()},
        **{
            f"winner_minus_{name}": paired_difference(means["winner"], means[name]).as_dict()
            for name in ("uniform", "random")
        },
        "importance": shares,
        "front": [{"trial": t.number, "ms": latency[t.number], "ndcg@10": t.score, **t.params} for t in line],
        "trials": [
            {"trial": t.number, "kind": t.params["fusion.kind"], "ms": latency[t.number], "ndcg@10": t.score}
            for t in places
        ],
    }


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """A search of 16 trials against the training of its trials."""
    import shutil

    options.trials = 16
    experiment, folder = prepared(options)
    own = folder / "overhead"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    return timed(experiment, own)[1]


def show(found: dict[str, Any]) -> None:
    table = Table("what", "value")
    for name, value in found.items():
        if name not in ("trials", "front", "winner", "median_random") or not isinstance(value, dict | list):
            table.add_row(name, json.dumps(value))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "benchmark-search")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=12, help="of a trial")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small shop and few short trials: a look, not a claim")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.trials, options.epochs = min(options.trials, 8), min(options.epochs, 2)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    with connect():
        found = overhead(options) if options.overhead else compare(options)
    show(found)
    if options.json is not None:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
