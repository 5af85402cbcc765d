"""What the search is worth on the generated shop and on fashion, and what it costs beside the training of its trials.

python benchmarks/search.py [--shop generated fashion] [--data DIR] [--runs DIR] [--trials N] [--epochs N] [--json FILE]
                            [--quick]                  winner against two others; DIR holds the files of fashion
python benchmarks/search.py --overhead …               a search of 16 trials

The winner of a search (TPE, asynchronous halving) is held against uniform loss weights (all 1) and the median of
as many random trials, which run to their end. All choosing is done on the validation split. Then each of the three is
trained with three seeds on the same cached encoder outputs, and every query of the test split is ranked once, over the
full catalogue of that split; the differences are paired by query, of each query the mean over seeds, for all of them
and for each group (fashion: pairs of words that training has seen, and others). Every step leaves its result on disk:
the same command goes on where it was interrupted. Loss weights are relative to `fused`, which is 1.
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
SHOPS = {"generated": "demo.yaml", "fashion": "fashion.yaml"}
console = Console(highlight=False)


def prepared(options: argparse.Namespace, shop: str) -> tuple[Experiment, Path]:
    """The shop up to `pretrain`, and the folder of the benchmark with the cache in it."""
    sets: dict[str, Any] = {"storage.root": str(options.runs.resolve()), "tune.epochs": options.epochs}
    sets |= {"tune.trials": options.trials}
    if shop == "fashion":
        sets["records.root"] = str(options.data.resolve())
    if options.quick:
        sets |= {"pretrain.text.epochs": 1, "pretrain.image.epochs": 1, "name": f"quick-{shop}"}
        if shop == "generated":
            sets |= {"records.generate.products": 240, "records.generate.queries": 200}
            sets |= {"records.generate.speech": False}
    experiment = config.update(config.load(ROOT / "workloads" / "configs" / SHOPS[shop]), sets)
    if experiment.records.generate is not None:
        generate.run(experiment)
    for stage in (preprocess, pretrain):
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


def test_queries(experiment: Experiment) -> tuple[np.ndarray, list[str]]:
    """Rows of the test split's queries in the query table, and the group of each."""
    import pyarrow.parquet as pq

    table = pq.read_table(stage_folder(experiment, "preprocess") / "queries.parquet", columns=["split", "group"])
    asked = np.flatnonzero(np.array(table["split"].to_pylist()) == "evaluation")
    groups = table["group"].to_pylist()
    return asked, [groups[row] or "none" for row in asked]


def test_scores(experiment: Experiment, folder: Path, params: dict, weights: Path) -> np.ndarray:
    """nDCG@10 [Q] of the fused score for each query of the test split, over the full catalogue of that split."""
    import pyarrow.parquet as pq
    import torch

    from fuserank.evaluation.metrics import rank_metrics
    from fuserank.models.checkpoint import load_weights
    from fuserank.training.cached import headless, open_cache
    from fuserank.training.encode import encode_table
    from fuserank.training.splits import open_splits
    from workloads.ranking import evaluation_rows

    cpu, products, queries = torch.device("cpu"), *(open_cache(folder / "cache", side) for side in ("product", "query"))
    model = headless(config.update(experiment, params), products)
    load_weights(model, weights)
    preprocess = stage_folder(experiment, "preprocess")
    splits = open_splits(preprocess, model.modalities, 0, products, queries)
    table = pq.read_table(preprocess / "products.parquet", columns=["split"])
    rows = evaluation_rows(table, experiment.records.split.by == "product")
    asked, _ = test_queries(experiment)
    vectors, mask = encode_table(model.eval(), products, rows, splits.columns, "product", cpu)
    query, query_mask = encode_table(model, queries, asked, splits.columns, "query", cpu)
    with torch.inference_mode():
        scores = model.query_vectors(query, query_mask) @ model.product_vectors(vectors, mask).T
    return rank_metrics(scores.float().numpy(), splits.train.judgments.matrix(asked, rows))["ndcg@10"]


def compare(options: argparse.Namespace, shop: str) -> dict[str, Any]:
    """Winner, uniform weights and the median random trial on the test split."""
    from workloads.query_time import measure

    experiment, folder = prepared(options, shop)
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
    uniform = {path: 1.0 for path in space if path.startswith("loss.weights.")}
    candidates = {"winner": winner.params, "uniform": uniform, "random": median.params}
    files = train_cells(experiment, folder, candidates)
    measured = {  # the test split is read here and nowhere else
        name: np.stack([test_scores(experiment, folder, candidates[name], file) for file in found])
        for name, found in files.items()
    }
    means = {name: np.mean(values, axis=0) for name, values in measured.items()}
    groups = np.array(test_queries(experiment)[1])
    places = [trial for trial in trials if trial.number in latency and trial.complete]
    points = [(latency[trial.number], trial.score or 0.0) for trial in places]
    kinds = [str(trial.params["fusion.kind"]) for trial in places]
    marks = [places.index(trial) for trial in line]
    if options.json is not None:
        png = plots.front(points, kinds, marks, places.index(winner))
        options.json.with_name(f"{options.json.stem}_{shop}_front.png").write_bytes(png)
    return {
        "took": took,
        "winner": winner.as_dict(),
        "median_random": median.as_dict(),
        "validation": {"winner": winner.score, "present": trials[0].score, "median_random": median.score},
        "test": {name: interval(values).as_dict() for name, values in means.items()},
        "test_by_seed": {name: [round(float(np.nanmean(v)), 4) for v in found] for name, found in measured.items()},
        **differences(means, np.ones(len(groups), bool)),
        "by_group": {group: differences(means, groups == group) for group in sorted(set(groups.tolist()))},
        "importance": shares,
        "front": [{"trial": t.number, "ms": latency[t.number], "ndcg@10": t.score, **t.params} for t in line],
        "trials": [
            {"trial": t.number, "kind": t.params["fusion.kind"], "ms": latency[t.number], "ndcg@10": t.score}
            for t in places
        ],
    }


def differences(means: dict[str, np.ndarray], chosen_queries: np.ndarray) -> dict[str, dict]:
    """Winner − each of the others over some of the queries, bool [Q]."""
    return {
        f"winner_minus_{name}": paired_difference(
            means["winner"][chosen_queries], means[name][chosen_queries]
        ).as_dict()
        for name in ("uniform", "random")
    }


def overhead(options: argparse.Namespace, shop: str) -> dict[str, Any]:
    """A search of 16 trials against the training of its trials."""
    import shutil

    options.trials = 16
    experiment, folder = prepared(options, shop)
    own = folder / "overhead"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    return timed(experiment, own)[1]


def show(found: dict[str, Any], shop: str) -> None:
    table = Table("what", "value", title=shop)
    for name, value in found.items():
        if name not in ("trials", "front", "winner", "median_random") or not isinstance(value, dict | list):
            table.add_row(name, json.dumps(value))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", nargs="+", choices=list(SHOPS), default=["generated"])
    parser.add_argument("--data", type=Path, help="folder of fashion's files")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "benchmark-search")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=12, help="of a trial")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small shop and few short trials: a look, not a claim")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "fashion" in options.shop and (options.data is None or not (options.data / "products.csv").is_file()):
        parser.error("fashion needs --data, the folder of its products.csv and images.zip")
    if options.quick:
        options.trials, options.epochs = min(options.trials, 8), min(options.epochs, 2)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    results: dict[str, Any] = {}
    for shop in options.shop:
        with connect():  # a Ray for each: the second shop's trials begin as those of the first did
            results[shop] = overhead(options, shop) if options.overhead else compare(options, shop)
        show(results[shop], shop)
        if options.json is not None:
            write_json(options.json, results)


if __name__ == "__main__":
    main()
