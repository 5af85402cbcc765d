"""Search over HTTP: ours against a plain FastAPI process, naive composition on Ray Serve, and FastAPI with batches.

Text queries, all different, caches off, over the products of a finished demo repeated to 20,000 (serving_shop.py). The
sides are in serving_sides.py; answers are compared first. Each pass starts every side in turn, alone, and asks it with
1, 16 and 64 connections; medians over passes. `--demo` is the demo's run folder (`make demo` makes it).

Run: `python benchmarks/serving.py [--demo runs/demo] [--quick] [--json FILE]`.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from serving_load import Load, ask, load
from serving_shop import questions, write_run
from serving_sides import READY, SIDES

from fuserank import config
from serve.launcher import free_port

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = (1, 16, 64)
COMPARED = 30  # queries whose answers must be the same


@contextmanager
def side(name: str, file: Path, log: Path):
    """A running side's port."""
    port = free_port()
    paths = os.pathsep.join(str(path) for path in (ROOT / "platform", ROOT, ROOT / "benchmarks"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_SERVE_")}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "serving_sides.py"), name, str(file), str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment | {"PYTHONPATH": paths},
        )
    try:
        assert process.stdout is not None
        if not any(line.strip() == READY for line in process.stdout):
            raise SystemExit(f"{name} did not start:\n{log.read_text()[-3000:]}")
        yield port
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.products, options.seconds, options.passes = 2000, 1.5, 1
    seen: dict[tuple[str, int], list[Load]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        experiment = write_run(options.demo, Path(scratch), options.products)
        file = Path(scratch) / "serving.yaml"
        config.dump(experiment, file)
        same = list(itertools.islice(questions(experiment, 9), COMPARED))
        expected: list[list[tuple[str, float]]] | None = None
        for turn in range(options.passes):
            for name in SIDES if turn % 2 == 0 else SIDES[::-1]:
                with side(name, file, Path(scratch) / f"{name}.log") as port:
                    answers = [ask(port, text) for text in same]
                    expected = expected or answers
                    _compare(name, expected, answers)
                    texts = questions(experiment, 10 + turn)
                    load(port, texts, 16, min(2.0, options.seconds))
                    for connections in CONNECTIONS:
                        seen.setdefault((name, connections), []).append(load(port, texts, connections, options.seconds))
                time.sleep(1)
    _print(seen, options)
    if options.json:
        options.json.write_text(json.dumps(figures(seen), indent=1), encoding="utf-8")


def _compare(name: str, expected: list[list[tuple[str, float]]], answers: list[list[tuple[str, float]]]) -> None:
    """Same products in the same order and the same scores, but for what a batch's rounding may exchange."""
    for mine, theirs in zip(answers, expected, strict=True):
        if len(mine) != len(theirs) or any(abs(a[1] - b[1]) > 1e-4 for a, b in zip(mine, theirs, strict=True)):
            raise SystemExit(f"{name} answers differently: {mine} instead of {theirs}")
        for a, b in zip(mine, theirs, strict=True):
            if a[0] != b[0] and sum(abs(b[1] - other[1]) < 1e-4 for other in theirs) < 2:
                raise SystemExit(f"{name} answers differently: {mine} instead of {theirs}")


def figures(seen: dict[tuple[str, int], list[Load]]) -> dict[str, float]:
    """Plain names → medians over passes."""
    found: dict[str, float] = {}
    for (name, connections), loads in seen.items():
        for field in ("per_second", "p50_ms", "p99_ms", "failed"):
            found[f"{name}_c{connections}_{field}"] = statistics.median(getattr(one, field) for one in loads)

    def ratio(name: str, connections: int) -> float:
        pairs = zip(seen["ours", connections], seen[name, connections], strict=True)
        return statistics.median(mine.per_second / theirs.per_second for mine, theirs in pairs)

    found["ratio_vs_naive_c64"] = ratio("naive", 64)
    found["ratio_vs_fastapi_c64"] = ratio("plain", 64)
    found["ratio_vs_batched_fastapi_c64"] = ratio("batched", 64)
    pairs = zip(seen["ours", 1], seen["plain", 1], strict=True)
    found["p50_gap_ms_c1"] = statistics.median(mine.p50_ms - theirs.p50_ms for mine, theirs in pairs)
    return found


def _print(seen: dict[tuple[str, int], list[Load]], options: argparse.Namespace) -> None:
    found, console = figures(seen), Console()
    table = Table("side", "connections", "req/s (min–max)", "p50 ms", "p99 ms", "failed")
    for (name, connections), loads in sorted(seen.items(), key=lambda one: (SIDES.index(one[0][0]), one[0][1])):
        rates = [one.per_second for one in loads]
        cells = [f"{statistics.median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})"]
        cells += [f"{found[f'{name}_c{connections}_{field}']:.1f}" for field in ("p50_ms", "p99_ms")]
        table.add_row(name, str(connections), *cells, str(sum(one.failed for one in loads)))
    console.print(table)
    console.print(
        f"{options.products:,} products, {options.passes} passes: ours at 64 connections "
        f"{found['ratio_vs_naive_c64']:.2f} × naive, {found['ratio_vs_fastapi_c64']:.2f} × plain, "
        f"{found['ratio_vs_batched_fastapi_c64']:.2f} × batched; p50 at one connection {found['p50_gap_ms_c1']:+.1f} ms"
    )


if __name__ == "__main__":
    main()
