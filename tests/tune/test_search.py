"""The search on cheap objectives: it finds a planted optimum, shows failures, stops what cannot win, and resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from fuserank.errors import StageError
from tune import ledger
from tune.ledger import Trial, best
from tune.plan import Halving, Plan
from tune.search import Watch, search

ROOT = Path(__file__).resolve().parents[2]
START = {"x": 0.9, "kind": "a"}
X = {"x": FloatDistribution(0.0, 1.0)}
SPACE = X | {"kind": CategoricalDistribution(["a", "b", "broken"])}
POINTS = [START, {"x": 0.9, "kind": "b"}, {"x": 0.9, "kind": "broken"}]


def planted(params: dict, watch: Watch) -> float:
    if params["kind"] == "broken":
        raise ValueError("no such kind")
    return (1.0 if params["kind"] == "b" else 0.5) - (params["x"] - 0.3) ** 2


def always_fails(params: dict, watch: Watch) -> float:
    raise RuntimeError("out of luck")


def diverges(params: dict, watch: Watch) -> float:
    return float("nan") if params["x"] > 0.5 else params["x"]


def climbs(params: dict, watch: Watch) -> float:
    """Nine epochs towards x."""
    for epoch in range(1, 10):
        watch(epoch, params["x"] * epoch / 9)
    return params["x"]


def threads(params: dict, watch: Watch) -> float:
    import torch

    return torch.get_num_threads()


class Occupies:
    """Writes to a folder when each trial began and ended; none ends before `together` have begun, however slowly
    their processes start.
    """

    def __init__(self, folder: Path, together: int):
        self.folder, self.together = folder, together

    def __call__(self, params: dict, watch: Watch) -> float:
        begin = time.time()
        (self.folder / f"{watch.number}.begun").touch()
        while len(list(self.folder.glob("*.begun"))) < self.together and time.time() < begin + 60:
            time.sleep(0.05)
        time.sleep(0.5)
        (self.folder / f"{watch.number}.times").write_text(f"{begin} {time.time()}")
        return 1.0


def same(params: dict, watch: Watch) -> float:
    return 1.0


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_finds_the_planted_optimum_and_shows_failures(ray_cluster, tmp_path, algorithm):
    said = []
    trials = search(planted, Plan(SPACE, POINTS, 24, algorithm, 1), tmp_path, say=said.append)
    assert [trial.number for trial in trials] == list(range(24))
    assert [trial.params for trial in trials[:3]] == POINTS
    winner = best(trials)
    assert winner.params["kind"] == "b"
    assert winner.score is not None
    assert winner.score > 0.93  # within 0.26 of the planted x
    assert trials[0].score == pytest.approx(0.5 - 0.36)
    assert all((trial.score is None) == (trial.params["kind"] == "broken") for trial in trials)
    assert trials[2].error == "ValueError: no such kind"
    assert any("trial 2  FAILED: ValueError: no such kind" in line for line in said)
    before = os.stat(tmp_path / "trials.jsonl").st_size
    assert search(planted, Plan(SPACE, POINTS, 24, algorithm, 1), tmp_path) == trials
    assert os.stat(tmp_path / "trials.jsonl").st_size == before  # nothing ran a second time


def test_a_diverged_trial_is_a_failed_one(ray_cluster, tmp_path):
    trials = search(diverges, Plan(X, [{"x": 0.2}, {"x": 0.9}], 2), tmp_path)
    assert trials[0].score == 0.2
    assert trials[1].score is None
    assert "diverged" in (trials[1].error or "")
    assert best(trials).number == 0


def test_all_failed_names_the_first_reason(ray_cluster, tmp_path):
    with pytest.raises(StageError, match="all 2 trials failed; the first: RuntimeError: out of luck"):
        search(always_fails, Plan(X, [{"x": 0.5}], 2), tmp_path)


def test_of_equal_scores_the_earliest_wins(ray_cluster, tmp_path):
    assert best(search(same, Plan(X, [{"x": 0.5}], 3), tmp_path)).number == 0


def test_what_cannot_win_is_stopped(ray_cluster, tmp_path):
    plan = Plan(X, [{"x": x} for x in (0.9, 0.8, 0.7)], 12, "random", 5, lag=2, halving=Halving(9, 1, 3))
    trials = search(climbs, plan, tmp_path)
    stopped = [trial for trial in trials if trial.stopped is not None]
    assert stopped
    for trial in trials:
        earlier = [t.history for t in trials if t.number <= trial.number - 2]
        for rung in (1, 3):  # what the rule asks, computed anew
            reached = [history[rung - 1] for history in earlier if len(history) >= rung]
            if len(trial.history) >= rung and len(reached) >= 3:
                assert (trial.stopped == rung) == (trial.history[rung - 1] < np.quantile(reached, 2 / 3)), trial
    assert all(len(trial.history) == (trial.stopped or 9) for trial in trials)
    assert best(trials).params["x"] == max(trial.params["x"] for trial in trials if trial.stopped is None)


@pytest.mark.prove
def test_trials_compute_with_the_cpus_they_reserve(ray_cluster, tmp_path):
    alone = search(threads, Plan(X, [], 2), tmp_path / "one", cpus=1)
    both = search(threads, Plan(X, [], 2), tmp_path / "two", cpus=2)
    assert {trial.score for trial in alone} == {1.0}
    assert {trial.score for trial in both} == {2.0}


@pytest.mark.parametrize(("cpus", "most"), [(1, 2), (2, 1)])
def test_however_many_are_asked_for_trials_never_reserve_more_than_there_is(ray_cluster, tmp_path, cpus, most):
    search(Occupies(tmp_path, most), Plan(X, [], 6, "random", lag=6), tmp_path, concurrent=6, cpus=cpus)
    times = [tuple(map(float, file.read_text().split())) for file in tmp_path.glob("*.times")]
    assert len(times) == 6
    at_once = [sum(begin <= moment < end for begin, end in times) for moment, _ in times]
    assert max(at_once) == most


def test_a_line_cut_off_by_a_kill_is_a_trial_that_has_not_run(tmp_path):
    file = tmp_path / "trials.jsonl"
    first, second = Trial(0, {"x": 0.5}, 0.5, 1.0), Trial(1, {"x": 0.6}, 0.6, 1.0)
    ledger.append(file, first)
    with file.open("a") as out:
        out.write('{"number": 1, "params": {"x": 0.')
    assert ledger.read(file) == {0: first}
    ledger.append(file, second)
    assert ledger.read(file) == {0: first, 1: second}


def test_the_folder_of_another_search_is_refused(ray_cluster, tmp_path):
    search(same, Plan(X, [{"x": 0.5}], 1), tmp_path)
    with pytest.raises(StageError, match="of an earlier search"):
        search(same, Plan(X, [{"x": 0.25}], 2), tmp_path)


SLOW_SEARCH = """
import os, sys, time
from pathlib import Path
import ray
from optuna.distributions import FloatDistribution
from tune.plan import Halving, Plan
from tune.search import search

folder = Path(sys.argv[1])

def objective(params, watch):
    with open(folder / "calls.txt", "a") as out:
        out.write(f"{watch.number} {os.getpid()}\\n")
    for epoch in range(1, 10):
        time.sleep(0.1 + (watch.number % 2) / 10)
        watch(epoch, 1 - (params["x"] - 0.3) ** 2 - 1 / epoch)
    return 1 - (params["x"] - 0.3) ** 2

ray.init(num_cpus=2, include_dashboard=False, address="local", log_to_driver=False)
plan = Plan({"x": FloatDistribution(0, 1)}, [{"x": 0.5}], 12, "tpe", 3, halving=Halving(9))
search(objective, plan, folder)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[int, Trial]:
    """All trials of a search that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with driver(folder) as run:
        assert run.wait(200) == 0
    return ledger.read(folder / "trials.jsonl")


def driver(folder: Path) -> subprocess.Popen:
    script = folder / "driver.py"
    script.write_text(SLOW_SEARCH)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, str(script), str(folder)], env=environment, **quiet)


def calls(folder: Path) -> list[tuple[int, int]]:
    """(trial, process) of every call of the objective."""
    file = folder / "calls.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [(int(number), int(pid)) for number, pid in map(str.split, lines)]


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def without_seconds(trials: dict[int, Trial]) -> list[dict]:
    return [{**trial.as_dict(), "seconds": None} for trial in trials.values()]


def test_a_killed_driver_goes_on_with_the_trials_it_would_have_had(tmp_path, undisturbed):
    file = tmp_path / "trials.jsonl"
    before: dict[int, Trial] = {}
    for enough in (3, 7):  # killed twice
        with driver(tmp_path) as run:
            wait_for(lambda enough=enough: len(ledger.read(file)) >= enough)
            run.send_signal(signal.SIGKILL)
        before |= ledger.read(file)
        time.sleep(2)  # the killed driver's Ray ends with it
    assert 7 <= len(before) < 12
    finished = len(calls(tmp_path))
    with driver(tmp_path) as run:
        assert run.wait(200) == 0
    after = ledger.read(file)
    assert without_seconds(after) == without_seconds(undisturbed)
    assert before.items() <= after.items()
    again = {number for number, _ in calls(tmp_path)[finished:]}
    assert not again & set(before)  # nothing that had finished was called again
    lines = [json.loads(line)["number"] for line in file.read_text().splitlines()]
    assert sorted(lines) == list(range(12))


def test_a_killed_trial_runs_again(tmp_path, undisturbed):
    with driver(tmp_path) as run:
        wait_for(lambda: len(calls(tmp_path)) >= 4)
        number, pid = calls(tmp_path)[-1]
        psutil.Process(pid).send_signal(signal.SIGKILL)
        assert run.wait(200) == 0
    assert [n for n, _ in calls(tmp_path)].count(number) == 2
    assert without_seconds(ledger.read(tmp_path / "trials.jsonl")) == without_seconds(undisturbed)
