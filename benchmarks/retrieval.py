"""Vector search in a large catalogue against an exact scan; filters at every selectivity; how soon a change is found.

Vectors are drawn by mixture.py, or read from `--vectors FILE.npy` (float32 [N, E], made unit length); the last 512 are
kept out of the index and asked for, with 512 products under as much noise and 512 means of five products. Exact search
is the faster of faiss's flat scan and our own product of matrices in blocks, which for a batch is the same as
`index.vectors: flat`. Both sides have one thread and take turns; speedups are medians of the turns' ratios.
`speedup_vs_exact` is for one query, which is what a retriever gets to see unless it is busy; a busy one sees batches.
How soon a change is found: visible.py, on as many products, in processes of its own.

Run: `python benchmarks/retrieval.py [--quick] [--kind auto|ivf|hnsw] [--json FILE]`. At full size it takes 4.3 GiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import visible
from mixture import mixture, unit
from rich.console import Console
from rich.table import Table
from watch import Watch

from fuserank.retrieval.exact import best_rows
from fuserank.retrieval.vectors import VectorIndex

ASKED = 512
K = 100
BATCHES = (1, 32)
MEASURED = {  # batch and k
    "speedup_vs_exact": (1, K),
    "speedup_vs_exact_batch_32": (32, K),
    "speedup_vs_exact_k_200": (1, 200),  # index.candidates
    "speedup_vs_exact_batch_32_k_200": (32, 200),
}
SHARES = (0.001, 0.01, 0.1, 0.5)
FILTERED = 64  # queries a filter is tried with
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def questions(vectors: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
    """Kind of question → queries [ASKED, E]."""
    random = np.random.default_rng(11)
    products = vectors[random.choice(len(vectors), ASKED)]
    five = vectors[random.choice(len(vectors), (ASKED, 5))]
    noise = unit(random.standard_normal(products.shape))
    return {"products": held, "blurred": unit(products + noise), "means": unit(five.mean(axis=1))}


def truth(vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Rows [B, k], best first, by plain products of all vectors with each query; −1 where fewer are allowed."""
    found = np.full((len(queries), k), -1)
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    k = min(k, len(rows))
    for start in range(0, len(queries), 16):
        scores = (queries[start : start + 16] @ vectors.T)[:, rows]
        best = np.argpartition(scores, len(rows) - k, axis=1)[:, len(rows) - k :]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1), axis=1)
        found[start : start + 16, :k] = rows[best]
    return found


def recall(rows: np.ndarray, best: np.ndarray) -> float:
    shares = [np.isin(b[b >= 0], a).mean() for a, b in zip(rows, best, strict=True) if (b >= 0).any()]
    return float(np.mean(shares))


def milliseconds(search: Callable[[np.ndarray], Any], queries: np.ndarray, batch: int, seconds: float) -> float:
    """Of one query; batches in turn until `seconds` have passed."""
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        at = done % (len(queries) - batch + 1)
        search(queries[at : at + batch])
        done += batch
    return (time.perf_counter() - begin) / done * 1000


def speeds(sides: dict[str, Callable], queries: np.ndarray, batch: int, k: int, options: Any) -> dict[str, list[float]]:
    """Side → ms a query of each turn."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(options.repeat):
        for side, search in sides.items():
            times[side].append(milliseconds(lambda part: search(part, k), queries, batch, options.seconds))  # noqa: B023
    return times


def filters(vectors: np.ndarray, index: VectorIndex, flat: VectorIndex, queries: np.ndarray) -> dict[str, Any]:
    """Random filters of each share, and half of the rows, those farther from the mean query (the hardest half)."""
    random = np.random.default_rng(12)
    toward = vectors @ queries.mean(axis=0)
    masks = {f"{share:.1%}": random.random(len(vectors)) < share for share in SHARES}
    masks["50 %, the far half"] = toward < np.median(toward)
    found = {}
    for name, allowed in masks.items():
        best = truth(vectors, queries, K, allowed)
        cell: dict[str, Any] = {"recall": 1.0, "underfilled": 0, "wrong": 0}
        for batch in BATCHES:
            rows = np.concatenate([index.search(part, K, allowed)[0] for part in np.split(queries, FILTERED // batch)])
            cell["recall"] = min(cell["recall"], recall(rows, best))
            cell["underfilled"] += int(((rows >= 0).sum(axis=1) < min(K, allowed.sum())).sum())
            cell["wrong"] += int((~allowed[rows[rows >= 0]]).sum())
            for side, searched in (("", index), ("exact_", flat)):
                ms = milliseconds(lambda part: searched.search(part, K, allowed), queries, batch, 0.5)  # noqa: B023
                cell[f"{side}ms_batch_{batch}"] = ms
        found[name] = cell
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import faiss

    faiss.omp_set_num_threads(1)
    watch = Watch(os.getpid())
    vectors = unit(np.load(options.vectors)) if options.vectors else mixture(options.rows + ASKED, options.width)
    vectors, held = vectors[:-ASKED], vectors[-ASKED:].copy()
    asked = questions(vectors, held)
    before, begin = psutil.Process().memory_info().rss, time.perf_counter()
    index = VectorIndex.build(vectors, options.kind)
    figures: dict[str, Any] = {"rows": len(vectors), "width": vectors.shape[1], "kind": index.kind}
    figures["build_s"] = time.perf_counter() - begin
    figures["index_mib"] = (psutil.Process().memory_info().rss - before) / 2**20
    for kind, queries in asked.items():
        best = truth(vectors, queries, 200)
        for k in (10, K, 200):
            name = f"recall_at_{k}" if kind == "products" else f"recall_at_{k}_{kind}"
            figures[name] = recall(index.search(queries, k)[0], best[:, :k])
    flat = VectorIndex.build(vectors, "flat")
    scan = faiss.IndexFlatIP(vectors.shape[1])
    scan.add(vectors)  # type: ignore[call-arg]
    sides = {
        index.kind: index.search,
        "faiss flat": lambda part, k: scan.search(part, k),
        "products of matrices": lambda part, k: best_rows(part, k, len(vectors), lambda at: vectors[at]),
    }
    queries = np.concatenate(list(asked.values()))
    for name, (batch, k) in MEASURED.items():
        times = speeds(sides, queries, batch, k, options)
        exact = [min(turns) for turns in zip(*(times[side] for side in sides if side != index.kind), strict=True)]
        ratios = [slow / fast for slow, fast in zip(exact, times[index.kind], strict=True)]
        figures[name], figures[f"{name}_range"] = statistics.median(ratios), [min(ratios), max(ratios)]
        for side, turns in times.items():
            figures[f"ms_{side.replace(' ', '_')}_batch_{batch}_k_{k}"] = statistics.median(turns)
    mixed = np.concatenate([part[:FILTERED] for part in asked.values()])[:: len(asked)]
    figures["filters"] = filters(vectors, index, flat, mixed)
    figures["filter_underfilled"] = sum(cell["underfilled"] for cell in figures["filters"].values())
    figures["filter_wrong"] = sum(cell["wrong"] for cell in figures["filters"].values())
    watch.close()
    figures["peak_mib"] = watch.peak / 2**20
    return figures


def screen(figures: dict[str, Any]) -> None:
    """The tables that people read."""
    console, kind = Console(width=120), figures["kind"]
    title = f"{figures['rows']:,} × {figures['width']}, one thread: ms a query, median"
    table = Table("batch", "k", kind, "faiss flat", "products of matrices", "speedup (min–max)", title=title)
    for name, (batch, k) in MEASURED.items():
        sides = (kind, "faiss_flat", "products_of_matrices")
        low, high = figures[f"{name}_range"]
        ms = [f"{figures[f'ms_{side}_batch_{batch}_k_{k}']:.2f}" for side in sides]
        table.add_row(str(batch), str(k), *ms, f"{figures[name]:.1f} ({low:.1f}–{high:.1f})")
    console.print(table)
    table = Table("filter", "recall", "underfilled", *(f"ms, batch of {b}" for b in BATCHES), "exact, 1", "exact, 32")
    for name, cell in figures["filters"].items():
        ms = [f"{cell[f'{side}ms_batch_{batch}']:.2f}" for side in ("", "exact_") for batch in BATCHES]
        table.add_row(name, f"{cell['recall']:.4f}", str(cell["underfilled"]), *ms)
    console.print(table)
    rest = {name: value for name, value in figures.items() if isinstance(value, float | int | str)}
    console.print({name: round(value, 4) if isinstance(value, float) else value for name, value in rest.items()})


def part(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One part in a process of its own with one thread; its last line is the answer."""
    line = [sys.executable, __file__, "--part", name, "--rows", str(options.rows), "--width", str(options.width)]
    line += ["--repeat", str(options.repeat), "--seconds", str(options.seconds), "--kind", options.kind]
    line += ["--live-seconds", str(options.live_seconds)]
    line += ["--vectors", str(options.vectors)] if options.vectors else []
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vectors", type=Path, help="real ones instead: float32 [N, E] in a .npy file")
    parser.add_argument("--kind", choices=["auto", "flat", "ivf", "hnsw"], default="auto")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn of a side")
    parser.add_argument("--live-seconds", type=int, default=180, help="of updates; 0 leaves that part out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a look within a minute, never for a claim")
    parser.add_argument("--part", choices=["search", "visible"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "search":
        print(json.dumps(measure(options)))
        return
    if options.part == "visible":
        print(json.dumps(visible.measure(options.rows, options.width, options.live_seconds, options.kind)), flush=True)
        os._exit(0)  # a compaction may be under way, and its thread does not survive the end of Python
    if options.quick:
        options.rows, options.repeat, options.seconds, options.live_seconds = 60_000, 3, 0.15, 10
    figures = part("search", options)
    if options.live_seconds:
        figures |= part("visible", options)
    screen(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
