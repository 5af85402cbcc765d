"""`fuserank policy` on a store's answers: estimates, the gate's word, and a clear message when nothing was served."""

import json

import numpy as np
import pytest

from fuserank.artifacts import MANIFEST, stage_path, write_json
from fuserank.config import Experiment, Policy, Storage
from fuserank.errors import MissingStageError
from fuserank.feedback.gate import recorded
from fuserank.feedback.policies.build import build_policy
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.slate_log import encode_features
from fuserank.store.database import Database, run_database
from workloads import feedback, policy

NAMES = ("bias", "liked")
ANSWERS = 600
LIKED = (0 * 1 + 0.5 * 5 + 1 * 26) / 32  # of two positions, with five candidates each liked with chance ½
BEST = 0.95 * (0.15 + 0.45 * LIKED) + 0.05 * (0.15 + 0.45 * 0.5)


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    settings = Policy(effective=50, bootstrap=200, samples=32)
    experiment = Experiment(name="shop", storage=Storage(root=str(tmp_path / "runs")), policy=settings)
    folder = stage_path(experiment, "index")
    folder.mkdir(parents=True)
    write_json(folder / MANIFEST, {"digest": "x"})
    return experiment


def serve(experiment: Experiment) -> None:
    """A uniform policy answers; products with `liked` are clicked four times as often."""
    random, server = np.random.default_rng(0), build_policy("linucb", LinearState(NAMES), share=1.0)
    impressions, events = [], []
    for number in range(ANSWERS):
        features = np.stack([np.ones(5), random.integers(0, 2, 5)], axis=1).astype(float)
        slates = server.choose(features[None], np.array([number]), 2)
        request = f"r{number}"
        impressions.append(
            {
                "request_id": request, "kind": "recommend", "candidate_ids": list("abcde"), "policy": server.name,
                "product_ids": ["abcde"[row] for row in slates.rows[0]],
                "propensities": slates.propensities[0].tolist(),
                "slate_propensity": float(slates.slate_propensity[0]), "features": encode_features(NAMES, features),
                "timestamp": 1_750_000_000_000 + number * 1000,
            }
        )  # fmt: skip
        for row in slates.rows[0]:
            if random.random() < 0.15 + 0.45 * features[row, 1]:
                events.append({"event_id": f"{number}-{row}", "type": "click", "product_id": "abcde"[row],
                               "request_id": request})  # fmt: skip
    impressions.append({"request_id": "plain", "kind": "search", "product_ids": ["a"]})
    with Database(run_database(experiment.run)[1]) as database:
        assert database.add_impressions(impressions).rejected == []
        assert database.add_events(events).rejected == []
    feedback.run(experiment)


def test_nothing_was_served(experiment, capsys) -> None:
    with pytest.raises(MissingStageError, match="fuserank feedback"):
        policy.run(experiment)
    feedback.run(experiment)
    summary = policy.run(experiment, promote=True)["summary"]
    assert summary["answers"] == 0
    assert "nothing was served yet" in summary["reason"]
    assert "Nothing to estimate" in capsys.readouterr().out


def test_a_better_policy_is_estimated_and_promoted(experiment, capsys) -> None:
    serve(experiment)
    folder = stage_path(experiment, "policy")
    summary = policy.run(experiment)["summary"]
    assert (summary["answers"], summary["judged_on"]) == (ANSWERS, ANSWERS // 2)
    assert summary["left_out"] == {"no features": 1}
    served = summary["estimates"]["served"]["ips"]
    assert served["value"] == pytest.approx(0.15 + 0.45 / 2, abs=0.06)
    for kind in ("epsilon_greedy", "linucb", "thompson"):
        dr = summary["estimates"][kind]["dr"]
        assert dr["bootstrap"]["low"] < BEST < dr["bootstrap"]["high"]
        assert dr["bootstrap"]["low"] > served["value"]
    assert recorded(folder / "decisions.jsonl") == []
    assert not (folder / "current.json").exists()
    assert policy.run(experiment, promote=True)["summary"]["decision"]["promoted"]
    current = json.loads((folder / "current.json").read_text())
    state = LinearState.from_dict(current["state"])
    assert current["settings"] == {"kind": "linucb", "share": 0.05, "ridge": 1.0, "alpha": 0.5}
    assert state.shown == ANSWERS  # two positions of half the answers
    assert "promoted" in capsys.readouterr().out
    html = (folder / "report.html").read_text()
    assert html.count("<img") == 3
    assert f"linucb@{state.version}" in html


def test_the_gate_refuses_and_remembers(experiment) -> None:
    serve(experiment)
    folder = stage_path(experiment, "policy")
    strict = experiment.model_copy(update={"policy": experiment.policy.model_copy(update={"margin": 0.5})})
    assert not policy.run(strict, promote=True)["summary"]["decision"]["promoted"]
    assert not (folder / "current.json").exists()
    policy.run(experiment, promote=True)
    assert [line["promoted"] for line in recorded(folder / "decisions.jsonl")] == [False, True]
    assert "does not beat" in recorded(folder / "decisions.jsonl")[0]["reasons"][0]
