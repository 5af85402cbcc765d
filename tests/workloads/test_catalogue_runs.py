"""Real catalogues, preprocessed as a user would: the command, a config and nothing but the folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

RUNS = {
    "icecat": ("icecat", {"products": 19_406, "queries": 81}),
    "luma": ("luma", {"products": 147, "reviews": 269}),
    "movielens": ("movielens", {"products": 1_682, "events": 100_000}),
    "sequences": ("sequences", {"products": 12_101}),
    "reviews_zh": ("reviews_zh", {"products": 62_774}),
    "voice": ("voice", {"products": 56}),
    "voice_digits": ("voice", {"products": 3_000}),
    "fashion": ("fashion", {"products": 20_509}),
}


@pytest.mark.parametrize("name", RUNS)
def test_loads_by_config_alone(name: str, tmp_path: Path) -> None:
    data, rows = RUNS[name]
    if not (SHARED / data).is_dir():
        pytest.skip(f"../shared/data/{data} is not here")
    line = [sys.executable, "-m", "workloads", "preprocess", "-c", f"workloads/configs/{name}.yaml"]
    line += [f"--set=records.root={SHARED / data}", f"--set=storage.root={tmp_path}"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    env.pop("RAY_ADDRESS", None)
    run = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=800, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    folder = next(tmp_path.glob("*/preprocess"))
    summary = json.loads((folder / "summary.json").read_text())
    assert {table: summary["rows"][table]["out"] for table in rows} == rows
    for part in summary["rows"].values():
        kept = part["in"] - part["merged"] - part["repeated"] - part["quarantined"]
        assert kept == part["out"] or not part["in"] or part is summary["rows"]["links"]  # one row holds many links
    products = pq.read_table(folder / "products.parquet", columns=["product_id"])["product_id"].to_pylist()
    parts = pq.read_table(folder / "features", columns=["product_id"])["product_id"].to_pylist()
    assert parts == products == sorted(set(products))
    assert (folder / "data_card.html").stat().st_size > 1000
