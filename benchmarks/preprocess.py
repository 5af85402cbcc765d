"""The same work – read from a zip, decode, resize to 96×96, tokenise – by Ray Data, a torch DataLoader and a bare loop.

Rows a second after the first batch, time to the first batch and peak memory, in one run on one machine; median of
`--repeat`, each side in a process of its own. Then Ray Data's peak memory on 50,000 and on 200,000 rows.
Run: `python benchmarks/preprocess.py [--quick] [--json FILE]`.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console
from rich.table import Table
from watch import Watch

from fuserank.features.featurizer import FeatureSettings, Featurizer
from fuserank.features.parts import block_begins
from fuserank.records.media import MediaSource

SIZE = (96, 96)
PICTURES = 4000  # distinct; rows take turns
WORKERS = 2
BLOCK = 1024  # rows of a block, a batch and a chunk alike
WORDS = [
    "red",
    "blue",
    "striped",
    "plain",
    "wool",
    "cotton",
    "oak",
    "steel",
    "lamp",
    "mug",
    "rug",
    "scarf",
    "chair",
    "vase",
    "clock",
    "shelf",
    "large",
    "small",
    "round",
]


class Work:
    """What every side does with a block of rows; picklable."""

    def __init__(self, folder: Path):
        self.featurizer = Featurizer.load(folder)
        self.source = MediaSource(folder, "pictures.zip")

    def __call__(self, paths: list[str], titles: list[str]) -> tuple[np.ndarray, list[list[int]]]:
        pixels = np.stack([self.featurizer.image(self.source.read(path)) for path in paths])
        return pixels, self.featurizer.text(titles)


def make_catalogue(folder: Path) -> None:
    """A zip of JPEG pictures and a tokenizer, both from one seed."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for place in range(PICTURES):
            coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            out = io.BytesIO()
            coarse.resize((160, 160), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
            archive.writestr(f"{place}.jpg", out.getvalue())
    titles = [title(row) for row in range(2000)]
    Featurizer.fit(titles, [], FeatureSettings(image_size=SIZE), vocabulary=500).save(folder)


def title(row: int) -> str:
    chosen = np.random.default_rng(row).integers(0, len(WORDS), 12)
    return " ".join(WORDS[word] for word in chosen)


def rows_of(start: int, stop: int) -> tuple[list[str], list[str]]:
    return [f"{row % PICTURES}.jpg" for row in range(start, stop)], [title(row % 2000) for row in range(start, stop)]


def bare(work: Work, rows: int) -> Iterator[int]:
    for start in range(0, rows, BLOCK):
        pixels, _ = work(*rows_of(start, min(start + BLOCK, rows)))
        yield len(pixels)


class _Rows:
    """A map-style data set that serves whole batches (`__getitems__`), so that the tokenizer works on many at once."""

    def __init__(self, work: Work, rows: int):
        self.work, self.rows = work, rows

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, places: list[int]) -> tuple[np.ndarray, list[list[int]]]:
        return self.work(*rows_of(places[0], places[-1] + 1))


def _as_tensor(batch: tuple[np.ndarray, list[list[int]]]) -> Any:
    import torch

    return torch.from_numpy(batch[0]), batch[1]


def loader(work: Work, rows: int) -> Iterator[int]:
    from torch.utils.data import DataLoader

    data: Any = _Rows(work, rows)
    for pixels, _ in DataLoader(data, BLOCK, num_workers=WORKERS, collate_fn=_as_tensor):
        yield len(pixels)


def ray_data(work: Work, rows: int) -> Iterator[int]:
    """As workloads/featurizing.py: a range of blocks for a pool of actors, each reads its own rows; order kept."""
    import ray.data

    begins = block_begins(rows, BLOCK, WORKERS)
    ends = [*begins[1:], rows]

    class Featurize:
        def __call__(self, block: pa.Table) -> pa.Table:
            return features(block["id"][0].as_py())

    def features(place: int) -> pa.Table:
        pixels, tokens = work(*rows_of(begins[place], ends[place]))
        offsets = pa.array(np.arange(len(pixels) + 1, dtype=np.int32) * (pixels.size // len(pixels)))
        images = pa.Array.from_buffers(
            pa.binary(), len(pixels), [None, offsets.buffers()[1], pa.py_buffer(pixels.reshape(-1))]
        )
        return pa.table({"image": images, "tokens": pa.array(tokens, pa.list_(pa.int32()))})

    dataset = ray.data.range(len(begins), override_num_blocks=len(begins))
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    pool = ray.data.ActorPoolStrategy(size=WORKERS, max_tasks_in_flight_per_actor=2)
    mapped = dataset.map_batches(
        Featurize, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, num_cpus=1, compute=pool
    )
    for batch in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield batch.num_rows


SIDES = {"bare loop": bare, "DataLoader": loader, "Ray Data": ray_data}


def measure(side: str, folder: Path, rows: int, memory: bool) -> dict[str, float]:
    """One side in this process: first batch and steady rate, or peak memory of the whole process tree.

    Not both at once: looking at the memory of Ray's dozen processes takes a fifth of two cores.
    """
    work = Work(folder)
    if side == "Ray Data":
        import logging

        os.environ.update(RAY_worker_niceness="0")  # as workloads/cluster.py
        import ray

        ray.init("local", num_cpus=WORKERS, object_store_memory=2**29, include_dashboard=False, logging_level="ERROR")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    if side == "DataLoader":
        import torch  # noqa: F401  (imported before the clock starts, as ray is)
    watch = Watch(os.getpid()) if memory else None
    begin, first, head, seen = time.perf_counter(), 0.0, 0, 0
    for count in SIDES[side](work, rows):
        if not seen:
            first, head = time.perf_counter() - begin, count
        seen += count
    seconds = time.perf_counter() - begin
    if watch is not None:
        watch.close()
        return {"peak_mib": watch.peak / 2**20}
    assert seen == rows, f"{side}: {seen} of {rows} rows"
    rate = (rows - head) / (seconds - first)
    return {"rows_per_s": rate, "first_batch_s": first, "seconds": seconds}


def run(side: str, folder: Path, rows: int, memory: bool = False) -> dict[str, float]:
    """`measure` in a process of its own; its last line is the answer."""
    line = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--rows", str(rows)]
    line += ["--memory"] if memory else []
    done = subprocess.run(line, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise SystemExit(f"{side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--json", type=Path, help="write every figure there")
    options.add_argument("--quick", action="store_true", help="a look within a minute, never for a claim")
    options.add_argument("--side", choices=list(SIDES), help="measure this one alone, on a catalogue in --folder")
    options.add_argument("--folder", type=Path)
    options.add_argument("--memory", action="store_true", help="with --side: its peak memory instead of its speed")
    given = options.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.folder, given.rows, given.memory)))
        return
    rows, repeat = (4_000, 1) if given.quick else (given.rows, given.repeat)
    sizes = (2_000, 8_000) if given.quick else (50_000, 200_000)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_catalogue(folder)
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for turn in range(repeat):
            for side in SIDES:
                found[side].append(run(side, folder, rows))
                console.print(f"{turn + 1}/{repeat} {side}: {found[side][-1]['rows_per_s']:.0f} rows/s")
        peaks = {side: run(side, folder, sizes[0], memory=True)["peak_mib"] for side in SIDES}
        small, large = peaks["Ray Data"], run("Ray Data", folder, sizes[1], memory=True)["peak_mib"]
    screen = Table("side", "rows/s (min–max)", "first batch s", "peak MiB", title=f"{rows} rows, {WORKERS} workers")
    median: dict[str, dict[str, float]] = {}
    for side, runs in found.items():
        median[side] = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        rates = [one["rows_per_s"] for one in runs]
        middle = median[side]
        spread = f"{middle['rows_per_s']:.0f} ({min(rates):.0f}–{max(rates):.0f})"
        screen.add_row(side, spread, f"{middle['first_batch_s']:.2f}", f"{peaks[side]:.0f}")
    figures = {
        "ratio_vs_dataloader": median["Ray Data"]["rows_per_s"] / median["DataLoader"]["rows_per_s"],
        "ratio_vs_bare_loop": median["Ray Data"]["rows_per_s"] / median["bare loop"]["rows_per_s"],
        "first_batch_s": median["Ray Data"]["first_batch_s"],
        "memory_ratio_200k_vs_50k": large / small,
        "rows": rows,
        "repeat": repeat,
    }
    console.print(screen)
    console.print({key: round(value, 3) for key, value in figures.items()}, f"{small:.0f} → {large:.0f} MiB")
    if given.json:
        sides = {side: {"median": median[side], "runs": runs, "peak_mib": peaks[side]} for side, runs in found.items()}
        given.json.write_text(json.dumps(figures | {"sides": sides}, indent=1))


if __name__ == "__main__":
    main()
