"""`fuserank policy -c FILE [--promote]`: what other policies would have earned on the answers that were served.

Reads feedback/ (impressions and joined clicks) and the store's decisions on live answers. Learns each configured policy
from the older answers, estimates all of them on the newer ones beside the one that served, and with --promote asks the
gate. Writes policy/: estimates.json, report.html, decisions.jsonl (kept from run to run) and, once one is promoted,
current.json: that policy in numbers. What is promoted answers at once, or begins as a canary (canaries.py).
"""

import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from fuserank.artifacts import run_stage, stage_folder, write_json
from fuserank.config import Experiment, Policy
from fuserank.config.online import Scenario
from fuserank.errors import PolicyError
from fuserank.evaluation import plots
from fuserank.evaluation.page import Cell, Page
from fuserank.feedback.estimators import Estimate, Log, estimate
from fuserank.feedback.gate import Decision, Gate, record, recorded
from fuserank.feedback.judged import FOLDS, judged
from fuserank.feedback.policies.base import SlatePolicy
from fuserank.feedback.policies.build import configured
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.slate_log import SlateLog, read_slates
from fuserank.store.database import Database, store_url
from fuserank.store.policies import ALL, Switch
from workloads import canaries
from workloads.progress import console, say

SERVED = "served"
DECISIONS, CURRENT = "decisions.jsonl", "current.json"


def run(experiment: Experiment, promote: bool = False) -> dict:
    """Estimate, and decide if asked to; always runs, because the log grows. Returns the stage's manifest.

    Raises:
        MissingStageError: `fuserank feedback` has not run.
    """
    feedback = stage_folder(experiment, "feedback")
    manifest = run_stage(
        experiment,
        "policy",
        lambda folder: _policy(experiment, feedback, folder, promote),
        force=True,
        survive=(DECISIONS, CURRENT),
        say=say,
    )
    if experiment.policy.online is not None and (manifest["summary"]["decision"] or {}).get("promoted"):
        if experiment.policy.canary:
            canaries.begin(experiment)
        else:
            switch(experiment, kind=experiment.policy.promote)
    canaries.tell(experiment)
    return manifest


def switch(
    experiment: Experiment, scenario: str | None = None, kind: str | None = None, frozen: bool | None = None
) -> None:
    """Set the policy of a scenario (None: of all), or freeze or free its exploration; a running service follows.

    Raises:
        PolicyError: no such scenario. StoreError: the database cannot be written.
    """
    if scenario is not None and scenario not in get_args(Scenario):
        raise PolicyError(f"there is no scenario {scenario!r}.", f"Choose one of {', '.join(get_args(Scenario))}.")
    with Database(store_url(experiment)) as database:
        database.switch_policy(Switch(scenario or ALL, kind, frozen))
    changed = [f"{kind} answers"] if kind else []
    changed += [] if frozen is None else [f"exploration is {'off' if frozen else 'on'}"]
    console.print(f"{scenario or 'every scenario'}: {', '.join(changed)}; running gateways follow within a second.")


def _policy(experiment: Experiment, feedback: Path, folder: Path, promote: bool) -> dict[str, Any]:
    settings = experiment.policy
    try:
        tables = [pq.read_table(feedback / f"{name}.parquet") for name in ("impressions", "joined")]
        log = read_slates(tables[0], tables[1], settings.reward)
        cut = int(len(log.rows) * settings.learn)
        learning, judging = log.part(slice(0, cut)), log.part(slice(cut, None))
        if min(len(learning.rows), len(judging.rows)) < FOLDS:
            raise PolicyError(f"{len(log.rows)} answers are too few to learn from some and judge by others.")
    except PolicyError as error:
        Console().print(f"Nothing to estimate: {error}", highlight=False)
        summary: dict[str, Any] = {"answers": 0, "reason": str(error), "estimates": {}, "decision": None}
        write_json(folder / "estimates.json", summary)
        return summary
    policies = {kind: _learnt(kind, learning, settings) for kind in dict.fromkeys((*settings.kinds, settings.promote))}
    estimates = {SERVED: _served(judging, settings, experiment.seed)}
    estimates |= {kind: _judged(policy, judging, settings, experiment.seed) for kind, policy in policies.items()}
    decision = _decide(policies[settings.promote], estimates, settings, folder) if promote else None
    summary = {
        "answers": len(log.rows),
        "judged_on": len(judging.rows),
        "left_out": log.left_out,
        "estimates": {p: {m: e.as_dict() for m, e in found.items()} for p, found in estimates.items()},
        "decision": None if decision is None else {"promoted": decision.promoted, "reasons": list(decision.reasons)},
    }
    write_json(folder / "estimates.json", summary)
    page = _report(experiment.name, log, estimates, recorded(folder / DECISIONS))
    canaries.show(page, experiment)
    (folder / "report.html").write_text(page.html(), encoding="utf-8")
    _print(estimates, settings, decision, folder)
    return summary


def _learnt(kind: str, log: SlateLog, settings: Policy) -> SlatePolicy:
    state = LinearState(log.names)
    state.observe(log.shown().reshape(-1, len(log.names)), log.rewards.ravel())
    return configured(kind, state, settings)


def _served(log: SlateLog, settings: Policy, seed: int) -> dict[str, Estimate]:
    own = Log(log.rewards, np.ones_like(log.rewards), largest=1.0)
    return estimate(own, ["ips"], settings.level, settings.bootstrap, seed)


def _judged(policy: SlatePolicy, log: SlateLog, settings: Policy, seed: int) -> dict[str, Estimate]:
    chances = policy.chances(log.features, log.rows.shape[1], log.mask).values
    whole = judged(chances, log.features, log.rows, log.propensities, log.rewards, settings.ridge, seed)
    return estimate(whole, None, settings.level, settings.bootstrap, seed)


def _decide(policy: SlatePolicy, estimates: dict[str, dict[str, Estimate]], settings: Policy, folder: Path) -> Decision:
    gate = Gate(settings.margin, settings.effective, settings.bound)
    decision = gate.decide(estimates[settings.promote][settings.estimator], estimates[SERVED]["ips"])
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record(folder / DECISIONS, decision, time=now, candidate=policy.name, estimator=settings.estimator)
    if decision.promoted:
        own = {name: getattr(policy, name) for name in ("alpha", "noise", "samples") if hasattr(policy, name)}
        values = {"kind": policy.kind, "share": policy.share, "ridge": policy.ridge, **own}
        write_json(folder / CURRENT, {"promoted": now, "settings": values, "state": policy.state.as_dict()})
    return decision


def _report(
    name: str, log: SlateLog, estimates: dict[str, dict[str, Estimate]], decisions: list[dict[str, Any]]
) -> Page:
    page = Page(f"Policies of {name}")
    left_out = ", ".join(f"{count} for {reason}" for reason, count in log.left_out.items()) or "none"
    page.text(f"{len(log.rows)} answers of {log.rows.shape[1]} positions; left out: {left_out}.", "soft")
    page.heading("What each policy would earn, a position shown")
    page.table(
        ("policy", "estimator", "value", "Bernstein", "effective answers", "warnings"),
        [_row(policy, method, found) for policy, methods in estimates.items() for method, found in methods.items()],
    )
    page.heading("What the policies that served earned")
    best = max((found["dr"] if "dr" in found else found["ips"]).value for found in estimates.values())
    rewards, lines, regret = log.rewards.mean(1), {}, {}
    served = [policy.partition("@")[0] for policy in log.policies]  # one that learns has a version every few seconds
    for kind in dict.fromkeys(served):
        own = rewards[np.array([one == kind for one in served])]
        points = np.unique(np.linspace(1, len(own), 40).astype(int))
        lines[kind] = [(int(n), float(own[:n].mean())) for n in points]
        regret[kind] = [(int(n), float((best - own[:n]).sum())) for n in points]
    page.plot(plots.curves(lines, "answers", "reward a position"), "mean reward so far, by policy that served")
    page.plot(
        plots.curves(regret, "answers", "regret"), f"summed shortfall to the best estimate, {best:.4f} a position"
    )
    page.plot(
        plots.distribution(log.propensities.ravel(), "Propensities", "chance of what was shown", log=True),
        "propensities of the products shown",
    )
    page.heading("Decisions of the gate")
    rows = [
        (d["time"], d["candidate"], "promoted" if d["promoted"] else "refused", "; ".join(d["reasons"]))
        for d in reversed(decisions)
    ]
    page.table(("time", "candidate", "decision", "why"), rows)
    return page


def _row(policy: str, method: str, found: Estimate) -> list[Cell | str]:
    low, high = found.bootstrap.low, found.bootstrap.high
    value = Cell(found.value, f"{found.value:.4f}", f" [{low:.4f}, {high:.4f}]")
    bounds = f"[{found.bernstein.low:.4f}, {found.bernstein.high:.4f}]"
    effective = Cell(found.effective, f"{found.effective:.0f}")
    return [policy, method, value, bounds, effective, "; ".join(found.warnings) or "none"]


def _print(
    estimates: dict[str, dict[str, Estimate]], settings: Policy, decision: Decision | None, folder: Path
) -> None:
    console = Console()
    table = Table("policy", "estimator", "value", f"{settings.level:.0%} interval", "effective", "reliable")
    for policy, methods in estimates.items():
        for method, found in methods.items():
            interval = f"{found.bootstrap.low:.4f} … {found.bootstrap.high:.4f}"
            reliable = "yes" if found.reliable else "no"
            table.add_row(policy, method, f"{found.value:.4f}", interval, f"{found.effective:.0f}", reliable)
    console.print(table)
    if decision is not None:
        word = "promoted" if decision.promoted else "refused"
        console.print(f"{settings.promote}: {word}: {'; '.join(decision.reasons)}", highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)
