"""The whole matrix of configurations and seeds; it goes on where it was interrupted, and its results stay."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results" / "matrix"

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3 * 3600)]


@pytest.fixture(scope="module")
def results() -> list[dict]:
    if not (DATA / "fashion").is_dir():
        pytest.skip("../shared/data/fashion is not here")
    line = [sys.executable, "benchmarks/matrix", "--data", str(DATA)]
    if model := os.environ.get("FUSERANK_TEXT_MODEL"):  # a saved all-MiniLM-L6-v2; without it its rows are left out
        line += ["--model", model]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    env.pop("RAY_ADDRESS", None)
    run = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))]


def means(results: list[dict], row: str, variant: str = "all text") -> dict[int, dict[str, float]]:
    """Seed → system → its main metric over all queries."""
    found = {}
    for result in results:
        if result["cell"]["row"] == row:
            systems = result["variants"][variant]["all queries"]["systems"]
            found[result["cell"]["seed"]] = {name: next(iter(m.values()))["mean"] for name, m in systems.items()}
    return found


@pytest.mark.parametrize(("variant", "goal"), [("all text", 0.88), ("text hidden for 50% of products", 0.83)])
def test_the_best_fusion_beats_late_concatenation_and_every_modality(
    results: list[dict], variant: str, goal: float
) -> None:
    kinds = {r["cell"]["sets"]["fusion.kind"]: r for r in results if r["cell"]["row"].startswith("fashion fusion")}
    assert set(kinds) == {"concat", "attention", "gated", "ensemble", "joint"}
    best = max((r for r in results if "fashion fusion" in r["cell"]["row"]), key=lambda r: r["validation"])
    compared = best["variants"][variant]["all queries"]
    assert compared["systems"]["fused"]["ndcg@10"]["mean"] >= goal
    rivals = {d["b"]: d["ndcg@10"] for d in compared["differences"] if d["a"] == "fused"}
    assert {"bm25", "late", "text"} <= set(rivals)
    assert all(difference["low"] > 0 for difference in rivals.values())


def test_pre_training_beats_none_with_a_tenth_of_the_labels(results: list[dict]) -> None:
    """In every seed, with all titles and with half of them hidden, and by pictures alone."""
    for variant in ("all text", "text hidden for 50% of products"):
        learnt = means(results, "fashion 10 % labels, pre-trained across", variant)
        nothing = means(results, "fashion 10 % labels, from nothing", variant)
        assert set(learnt) == set(nothing) == {0, 1, 2}
        assert all(learnt[seed]["fused"] > nothing[seed]["fused"] for seed in learnt)
        assert all(learnt[seed]["image"] > nothing[seed]["image"] for seed in learnt)


def test_digits_of_an_unheard_speaker(results: list[dict]) -> None:
    rows = {r["cell"]["row"] for r in results if r["cell"]["row"].startswith("digits of")}
    assert len(rows) == 6
    right = [means(results, row)[0]["fused"] for row in rows]
    assert sum(right) / len(right) >= 0.9
