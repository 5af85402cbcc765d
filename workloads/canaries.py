"""Canaries of policies and decisions on live answers, as `fuserank policy` begins, ends, prints and reports them.

Reads and writes the store; who judges is the running service (feedback/canary.py, feedback/generations.py).
"""

import time
from typing import get_args

from rich.console import Console
from rich.table import Table

from fuserank.config import Experiment
from fuserank.config.online import Scenario
from fuserank.errors import PolicyError
from fuserank.evaluation.page import Page
from fuserank.store.database import Database, store_url
from fuserank.store.decisions import Decision
from fuserank.store.policies import ALL, kinds
from workloads.progress import console

WHERE = "GET /v1/admin/policy shows how it stands, the next report of `fuserank policy` what was decided."


def begin(experiment: Experiment) -> None:
    """Let the policy to be promoted answer its share of the visitors. Raises StoreError."""
    settings = experiment.policy
    assert settings.online is not None
    with _opened(experiment) as database:
        incumbent, running = kinds(database.policy_heads()[1], ALL, settings.online.kind)
        if incumbent == settings.promote:
            console.print(f"{incumbent} answers already: there is nothing to compare it with.")
            return
        if running is None or (running.kind, running.share) != (settings.promote, settings.canary):
            database.begin_canary(ALL, settings.promote, settings.canary)
            word = "began"
        else:
            word = "goes on"
    console.print(
        f"a canary {word}: {settings.promote} answers {settings.canary:.0%} of the visitors, {incumbent} the others;"
        f" a running service judges it by itself. {WHERE}"
    )


def end(experiment: Experiment, scenario: str | None = None) -> None:
    """Roll back the canary of a scenario, or every one.

    Raises:
        PolicyError: no such scenario, or no canary. StoreError: the database cannot be written.
    """
    if scenario is not None and scenario not in get_args(Scenario):
        raise PolicyError(f"there is no scenario {scenario!r}.", f"Choose one of {', '.join(get_args(Scenario))}.")
    with _opened(experiment) as database:
        count = database.end_canaries(scenario, "asked for on the command line")
    if not count:
        raise PolicyError(f"no canary runs in {scenario or 'any scenario'}.", "Leave --scenario out to end every one.")
    console.print("the canary has ended; running gateways follow within a second.")


def show(page: Page, experiment: Experiment) -> None:
    """Put the decisions on live answers into a report, the latest first."""
    page.heading("Decisions on live answers")
    with _opened(experiment) as database:
        decisions = database.decisions()
    if not decisions:
        page.text("None yet: no canary of a policy has ended, no generation was judged.", "soft")
        return
    rows = [(*_row(decision), _evidence(decision)) for decision in reversed(decisions)]
    page.table(("time", "candidate", "incumbent", "decision", "why", "evidence"), rows)


def tell(experiment: Experiment) -> None:
    """Print them, oldest first; nothing without any."""
    with _opened(experiment) as database:
        decisions = database.decisions()
    if decisions:
        table = Table("time", "candidate", "incumbent", "decision", "why", title="decisions on live answers")
        for decision in decisions:
            table.add_row(*_row(decision))
        Console().print(table)


def _opened(experiment: Experiment) -> Database:
    return Database(store_url(experiment))


def _row(decision: Decision) -> tuple[str, str, str, str, str]:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(decision.at / 1000))
    where = f" in {decision.scenario}" if decision.scenario not in (None, ALL) else ""
    return at, f"{decision.candidate}{where}", decision.incumbent or "", decision.outcome, decision.why


def _evidence(decision: Decision) -> str:
    """The numbers of the look that decided; of a generation that was kept, each kind's last."""
    looks = {name: look for name, look in decision.evidence.items() if isinstance(look, dict) and "answers" in look}
    parts = []
    for name, look in looks.items():
        bounds = "" if look["low"] is None else f" [{look['low']:.5f}, {look['high']:.5f}]"
        counts = f"{look['answers']} and {look['incumbent_answers']} answers"
        what = "" if name == "look" else f"{name}: "
        means = f"{look['mean']:.5f} against {look['incumbent_mean']:.5f}"
        parts.append(f"{what}{means}, {look['difference']:+.5f}{bounds}, {counts}")
    return "; ".join(parts)
