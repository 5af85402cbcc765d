"""The search on cheap objectives: it finds a planted optimum, shows failures, resumes, and never loses to trial 0."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray import tune as ray_tune

from fuserank.errors import StageError
from tune.search import best, read_ledger, search

ROOT = Path(__file__).resolve().parents[2]
START = {"x": 0.9, "kind": "a"}


def space():
    return {"x": ray_tune.uniform(0.0, 1.0), "kind": ray_tune.choice(["a", "b", "broken"])}


def planted(params: dict) -> float:
    if params["kind"] == "broken":
        raise ValueError("no such kind")
    return (1.0 if params["kind"] == "b" else 0.5) - (params["x"] - 0.3) ** 2


def always_fails(params: dict) -> float:
    raise RuntimeError("out of luck")


def diverges(params: dict) -> float:
    return float("nan") if params["x"] > 0.5 else params["x"]


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_finds_the_planted_optimum_and_shows_failures(ray_cluster, tmp_path, algorithm):
    points = [START, {"x": 0.9, "kind": "b"}, {"x": 0.9, "kind": "broken"}]
    trials = search(planted, space(), points, tmp_path, 16, 2, seed=1, algorithm=algorithm)
    assert [trial.number for trial in trials] == list(range(16))
    assert [trial.params for trial in trials[:3]] == points
    winner = best(trials)
    assert winner.params["kind"] == "b"
    assert winner.score is not None
    assert winner.score > 0.93  # within 0.26 of the planted x
    assert trials[0].score == pytest.approx(planted(START))
    assert all((trial.score is None) == (trial.params["kind"] == "broken") for trial in trials)
    assert trials[2].error == "ValueError: no such kind"
    before = os.stat(tmp_path / "trials.jsonl").st_size
    again = search(planted, space(), points, tmp_path, 16, 2, seed=1, algorithm=algorithm)
    assert again == trials
    assert os.stat(tmp_path / "trials.jsonl").st_size == before  # nothing ran a second time


def test_a_diverged_trial_is_a_failed_one(ray_cluster, tmp_path):
    trials = search(diverges, {"x": ray_tune.uniform(0.0, 1.0)}, [{"x": 0.2}, {"x": 0.9}], tmp_path, 2)
    assert trials[0].score == 0.2
    assert trials[1].score is None
    assert "diverged" in (trials[1].error or "")
    assert best(trials).number == 0


def test_all_failed_names_the_first_reason(ray_cluster, tmp_path):
    with pytest.raises(StageError, match="all 2 trials failed; the first: RuntimeError: out of luck"):
        search(always_fails, {"x": ray_tune.uniform(0.0, 1.0)}, [{"x": 0.5}], tmp_path, 2)


def test_of_equal_scores_the_earliest_wins(ray_cluster, tmp_path):
    trials = search(lambda params: 1.0, {"x": ray_tune.uniform(0.0, 1.0)}, [{"x": 0.5}], tmp_path, 3)
    assert best(trials).number == 0


SLOW_SEARCH = """
import sys, time
from pathlib import Path
import ray
from ray import tune
from tune.search import search

folder = Path(sys.argv[1])

def objective(params):
    with open(folder / "calls.txt", "a") as out:
        out.write(str(params["x"]) + "\\n")
    time.sleep(1.5)
    return params["x"]

ray.init(num_cpus=2, include_dashboard=False, address="local", log_to_driver=False)
for trial in search(objective, {"x": tune.uniform(0, 1)}, [{"x": 0.5}], folder, 8, 2, 3):
    print("result", trial.number, trial.params["x"], trial.score, flush=True)
"""


def test_a_killed_driver_goes_on_without_repeating_finished_trials(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(SLOW_SEARCH)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(script), str(tmp_path)]
    ledger, begin = tmp_path / "trials.jsonl", time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while len(read_ledger(ledger)) < 4 and time.monotonic() - begin < 90:
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
    finished = read_ledger(ledger)
    assert 4 <= len(finished) < 8
    time.sleep(2)  # the killed driver's Ray ends with it
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert second.returncode == 0, second.stderr[-2000:]
    done = read_ledger(ledger)
    assert [trial.number for trial in done] == list(range(8))
    by_number = {trial.number: trial.params for trial in done}
    assert all(by_number[trial.number] == trial.params for trial in finished)
    calls = (tmp_path / "calls.txt").read_text().split()
    early = {str(trial.params["x"]) for trial in finished[:2]}
    assert all(
        calls.count(x) == 1 for x in early
    )  # at most what finished in the last second before the kill runs again
