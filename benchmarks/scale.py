"""A large catalogue of text and prices, preprocessed as a user would: seconds, rows a second and peak memory.

Peak memory is the proportional set size of the command and all of Ray's processes, looked at twice a second.
Run: `python benchmarks/scale.py [--rows 1000000] [--folder DIR] [--json FILE]`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from watch import Watch

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
name: scale
records:
  products: {files: [products.csv]}
preprocess:
  text_fields: [title, brand, category, description]
"""
AT_ONCE = 50_000


def write_catalogue(path: Path, rows: int) -> None:
    """A CSV file of random words, one seed."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(random.choice(letters, random.integers(3, 10))) for _ in range(20_000)])
    ranks = 1 / np.arange(1, len(words) + 1)  # Zipf, as words of shops are
    ends = np.cumsum(ranks / ranks.sum())
    with path.open("w", encoding="utf-8") as out:
        out.write("product_id,title,description,brand,category,price,currency\n")
        for start in range(0, rows, AT_ONCE):
            count = min(AT_ONCE, rows - start)
            chosen = words[np.searchsorted(ends, random.random((count, 36))).clip(max=len(words) - 1)]
            prices = np.exp(random.normal(3, 1, count))
            for place in range(count):
                row = chosen[place]
                out.write(
                    f"sku-{start + place:08d},{' '.join(row[:8])},{' '.join(row[8:34])},{row[34]},{row[35]},"
                    f"{prices[place]:.2f},EUR\n"
                )


def run(folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one `preprocess`."""
    line = [sys.executable, "-m", "workloads", "preprocess", "-c", str(folder / "scale.yaml")]
    line += [f"--set=records.root={folder}", f"--set=storage.root={folder / 'runs'}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    environment.pop("RAY_ADDRESS", None)
    begin = time.perf_counter()
    process = subprocess.Popen(line, cwd=ROOT, env=environment)
    watch = Watch(process.pid)
    code = process.wait()
    watch.close()
    if code:
        raise SystemExit(f"preprocess ended with {code}")
    return time.perf_counter() - begin, watch.peak / 2**20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path, help="where the catalogue and the run go; default: a temporary folder")
    options.add_argument("--json", type=Path, help="write the figures there")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scale.yaml").write_text(CONFIG)
        write_catalogue(folder / "products.csv", given.rows)
        size = (folder / "products.csv").stat().st_size / 2**20
        seconds, peak = run(folder)
        products = pq.ParquetFile(folder / "runs" / "scale" / "preprocess" / "products.parquet").metadata.num_rows
    figures = {
        "rows": given.rows,
        "csv_mib": size,
        "products": products,
        "seconds": seconds,
        "rows_per_s": given.rows / seconds,
        "peak_mib": peak,
    }
    print({name: round(value, 1) for name, value in figures.items()})
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
