"""`fuserank policy` on a store's answers: estimates, the gate's word, and a clear message when nothing was served."""

import json

import pytest
import torch

from fuserank import config
from fuserank.artifacts import stage_path
from fuserank.config import Experiment
from fuserank.errors import MissingStageError, PolicyError
from fuserank.feedback.gate import recorded
from fuserank.feedback.policies.state import LinearState
from fuserank.models.click import load_click
from fuserank.store.database import Database, run_database
from fuserank.store.policies import ALL, Switch
from tests.workloads.served import ANSWERS, experiment_below, serve
from workloads import canaries, feedback, policy

LIKED = (0 * 1 + 0.5 * 5 + 1 * 26) / 32  # of two positions, with five candidates each liked with chance ½
BEST = 0.95 * (0.15 + 0.45 * LIKED) + 0.05 * (0.15 + 0.45 * 0.5)


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    return experiment_below(tmp_path / "runs")


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


def test_a_promoted_policy_and_a_freeze_reach_the_running_service(experiment: Experiment) -> None:
    experiment = config.update(experiment, {"policy.online": {"kind": "thompson"}})
    serve(experiment)
    feedback.run(experiment)
    policy.run(experiment, promote=True)
    policy.switch(experiment, "recommend", frozen=True)
    with Database(run_database(experiment.run)[1]) as database:
        switches = database.policy_heads()[1]
    assert switches == {ALL: Switch(ALL, "linucb"), "recommend": Switch("recommend", None, True)}
    with pytest.raises(PolicyError, match="no scenario"):
        policy.switch(experiment, "searches", frozen=True)


def test_a_promoted_policy_begins_as_a_canary(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = config.update(experiment, {"policy.online": {"kind": "thompson"}, "policy.canary": 0.1})
    serve(experiment)
    folder = stage_path(experiment, "policy")
    policy.run(experiment, promote=True)
    told = " ".join(capsys.readouterr().err.split())
    assert "a canary began: linucb answers 10% of the visitors, thompson the others" in told
    assert "/v1/admin/policy" in told
    with Database(run_database(experiment.run)[1]) as database:
        (switch,) = database.policy_heads()[1].values()
        assert switch.kind is None
        canary = switch.canary
        assert canary is not None
        assert (canary.scenario, canary.kind, canary.share) == (ALL, "linucb", 0.1)
        assert "None yet" in (folder / "report.html").read_text()
        policy.run(experiment, promote=True)
        assert "a canary goes on" in capsys.readouterr().err
        assert database.policy_heads()[1][ALL].canary == canary
        with pytest.raises(PolicyError, match="no canary runs in search"):
            canaries.end(experiment, "search")
        canaries.end(experiment)
        assert database.policy_heads()[1] == {ALL: Switch(ALL)}
        look = {"answers": 200, "incumbent_answers": 900, "mean": 0.2, "incumbent_mean": 0.1}
        look |= {"difference": 0.1, "low": 0.05, "high": 0.15}
        database.begin_canary(ALL, "linucb", 0.1)
        again = database.policy_heads()[1][ALL].canary
        assert again is not None
        database.end_canary(again, again.decision("promoted", "it earns more", "thompson", {"look": look}))
    capsys.readouterr()
    policy.run(experiment, promote=True)
    told = capsys.readouterr()
    assert "linucb answers already" in told.err
    assert "by hand" in told.out
    html = (folder / "report.html").read_text()
    assert "it earns more" in html
    assert "0.20000 against 0.10000, +0.10000 [0.05000, 0.15000], 200 and 900 answers" in html
    assert "asked for on the command line" in html


def test_a_click_model_of_what_was_shown(experiment: Experiment, capsys) -> None:
    """Clicks follow `liked`: the model finds it, and says how well."""
    serve(experiment)
    summary = feedback.run(experiment)["summary"]["clicks"]
    folder = stage_path(experiment, "feedback")
    assert summary["recommend"]["click"]["saved"]["low"] > 0
    assert "purchase" not in summary["recommend"]  # nobody bought anything: nothing to judge by
    model, names = load_click(folder / "click" / "recommend")
    assert model(torch.zeros(1, len(names)), torch.zeros(1, dtype=torch.int64)).shape == (1, 2)
    assert (folder / "report.html").read_text().count("<img") == 2
    assert "click model of recommend: AUC" in capsys.readouterr().out
