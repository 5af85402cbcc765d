"""Judges canaries on their own answers: promotes to all, rolls back, or ends without proof. Reads and writes the store.

Compared are what the canary's kind of policy and the incumbent's answered since the canary began, the same scenarios
and the same time, visitors divided by a hash: an experiment, by sequential.py's rule. All that decides is in the store,
and is replayed after a restart; of two judges one is the first to end a canary (store/canaries.py).
"""

import logging
import time
from dataclasses import dataclass
from typing import Any, get_args

from fuserank.config import Policy
from fuserank.config.online import Scenario
from fuserank.feedback.sequential import Comparison, Look
from fuserank.store.canaries import Canary
from fuserank.store.database import Database
from fuserank.store.decisions import Outcome
from fuserank.store.outcomes import Asked
from fuserank.store.policies import ALL, Switch, kinds
from fuserank.store.validate import REWARDS

log = logging.getLogger("fuserank.feedback")
AT_ONCE = 2000  # answers of one query
EARLIER = 60_000  # ms that a gateway's clock may be ahead of that of the store's writer


@dataclass
class _Trial:
    """One canary as far as it has been followed."""

    comparison: Comparison
    last: tuple[int, str]  # (stored, request_id) of the last answer counted


class CanaryJudge:
    """One call of `look` after the other, from one thread."""

    def __init__(self, database: Database, settings: Policy):
        """
        Args:
            settings: with `online`.
        """
        assert settings.online is not None
        self._database, self._settings, self._online = database, settings, settings.online
        self._trials: dict[tuple[Canary, str], _Trial] = {}

    def look(self) -> None:
        """Follow every canary that runs, and do what is decided. Raises StoreError."""
        switches = self._database.policy_heads()[1]
        running: dict[tuple[Canary, str], _Trial] = {}
        known, self._trials = self._trials, {}  # where the database fails now, all is replayed from it later
        for canary in (switch.canary for switch in switches.values() if switch.canary is not None):
            scenarios, incumbent = self._meant(canary, switches)
            if not scenarios:
                why = "nothing is left that it would answer"
                self._database.end_canary(canary, canary.decision("ended by hand", why, incumbent))
                continue
            running[canary, incumbent] = trial = known.get((canary, incumbent)) or _Trial(
                Comparison(self._settings.canary_answers, self._settings.level), (canary.since - EARLIER, "")
            )
            self._follow(canary, incumbent, scenarios, trial)
        self._trials = running

    def _meant(self, canary: Canary, switches: dict[str, Switch]) -> tuple[tuple[str, ...], str]:
        """The scenarios that it answers, and the kind of policy that answers the rest of them."""
        named = get_args(Scenario) if canary.scenario == ALL else (canary.scenario,)
        told = {name: kinds(switches, name, self._online.kind) for name in named}
        meant = tuple(name for name in told if told[name][1] == canary and name in self._online.scenarios)
        return meant, told[(meant or named)[0]][0]

    def _follow(self, canary: Canary, incumbent: str, scenarios: tuple[str, ...], trial: _Trial) -> None:
        settings, comparison = self._settings, trial.comparison
        settle = round(1000 * settings.settle_seconds)
        until = time.time_ns() // 1_000_000 - settle
        asked = Asked(
            REWARDS[settings.reward], settle, scenarios, canary.since, until, policies=(canary.kind, incumbent)
        )
        while found := self._database.outcomes_after(asked, trial.last, AT_ONCE):
            for outcome in found:
                trial.last = (outcome.stored, outcome.request_id)
                if outcome.policy != canary.kind:
                    comparison.incumbent(outcome.visitor, outcome.value)
                elif (look := comparison.candidate(outcome.visitor, outcome.value)) and (decided := self._decide(look)):
                    self._end(canary, incumbent, decided, look, comparison)
                    return
        self._database.note_canary(canary, self._stands(incumbent, comparison))

    def _decide(self, look: Look) -> tuple[Outcome, str] | None:
        """What is to be done and why; None: go on."""
        margin, effective = self._settings.margin, self._settings.effective
        if look.worse():
            return "rolled back", f"upper bound of the difference {look.high:.5f} is below 0"
        if look.better(margin) and look.answers >= effective:
            return "promoted", f"lower bound of the difference {look.low:.5f} is above {margin:g}"
        if look.last:
            return "ended without proof", f"nothing is proven after {look.answers} answers of its own"
        return None

    def _end(
        self, canary: Canary, incumbent: str, decided: tuple[Outcome, str], look: Look, comparison: Comparison
    ) -> None:
        settings = self._settings
        rule = {name: getattr(settings, name) for name in ("reward", "level", "margin", "effective", "settle_seconds")}
        evidence = {"look": look.as_dict(), "looks": comparison.looks, "share": canary.share, "since": canary.since}
        if self._database.end_canary(canary, canary.decision(*decided, incumbent, evidence | {"rule": rule})):
            log.warning("canary of %s in %s: %s: %s", canary.kind, canary.scenario, *decided)

    @staticmethod
    def _stands(incumbent: str, comparison: Comparison) -> dict[str, Any]:
        new, old = comparison.candidates, comparison.incumbents
        return {
            "at": time.time_ns() // 1_000_000,
            "incumbent": incumbent,
            "answers": new.answers,
            "incumbent_answers": old.answers,
            "difference": new.mean - old.mean if new.answers and old.answers else None,
            "look": comparison.latest and comparison.latest.as_dict(),
        }
