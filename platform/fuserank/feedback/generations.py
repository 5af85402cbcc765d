"""Judges the generation that answers against the one before it, and rolls it back where it proves to earn less. Reads
and writes the store.

Compared are the new one's answers with the latest of the old one's before the switch, searches and recommendations by
themselves, by sequential.py's rule. That is a comparison of two times, no experiment: what else changed at the switch –
the hour, a sale – counts as if the generation had done it; `policy.fall` is the room for that. So it is off by default.

A generation is judged once. What was rolled back and is activated again by hand stays, and an older generation is never
judged against a newer one: whoever went back meant it. So nothing goes to and fro by itself.
"""

import logging
import time
from collections.abc import Callable, Sequence

from fuserank.config import Policy
from fuserank.feedback.sequential import FIRST, Comparison, Look
from fuserank.store.database import Database
from fuserank.store.decisions import Decision
from fuserank.store.generations import Generation
from fuserank.store.outcomes import Asked
from fuserank.store.validate import REWARDS

log = logging.getLogger("fuserank.feedback")
KINDS = ("search", "recommend")
AT_ONCE = 2000  # answers of one query
Pair = tuple[Generation, Generation]  # the one that answers, and the one before it


def judged(rows: Sequence[Generation]) -> Pair | None:
    """Which generation is to be judged against which; None: there is nothing to judge.

    Args:
        rows: all there are, oldest first.
    """
    active = next((row for row in rows if row.state == "active"), None)
    past = [row for row in rows if row.state == "retired" and row.activated_at]
    if active is None or active.activated_at is None or not past:
        return None
    before = max(past, key=lambda row: row.activated_at or 0)
    return (active, before) if rows.index(active) > rows.index(before) else None


class GenerationJudge:
    """One call of `look` after the other, from one thread."""

    def __init__(self, database: Database, settings: Policy, roll_back: Callable[[Decision], bool]):
        """
        Args:
            roll_back: does what a decision says, once; False: not now, or somebody else did.
        """
        self._database, self._settings, self._roll_back = database, settings, roll_back
        self._pair: tuple[str, int | None, str] | None = None
        self._comparisons: dict[str, Comparison] = {}  # by kind of answer
        self._last: dict[str, tuple[int, str]] = {}  # (stored, request_id) of the last answer counted
        self._verdict: Decision | None = None

    def look(self) -> None:
        """Follow the generation that answers, and go back if it proves worse. Raises StoreError."""
        pair = judged(self._database.generations())
        settle = round(1000 * self._settings.settle_seconds)
        now = time.time_ns() // 1_000_000
        if pair is None or now < (pair[0].activated_at or 0) + settle:
            return
        new, old = pair
        identity = f"generation {new.id}"
        if any(decision.id == identity for decision in self._database.decisions()):
            return
        if self._pair != (new.id, new.activated_at, old.id):
            self._begin(pair, settle)
        if self._verdict is None:
            self._verdict = self._follow(pair, settle, now - settle)
        if self._verdict is None:
            return
        worse = self._verdict.outcome == "rolled back"
        if (self._roll_back if worse else self._database.add_decision)(self._verdict):
            log.warning("generation %s: %s: %s", new.id, self._verdict.outcome, self._verdict.why)

    def _asked(self, kind: str, settle: int, generation: Generation, since: int, until: int) -> Asked:
        return Asked(REWARDS[self._settings.reward], settle, (kind,), since, until, generation.id)

    def _begin(self, pair: Pair, settle: int) -> None:
        new, old = pair
        begun, settings = new.activated_at or 0, self._settings
        self._pair, self._verdict, self._comparisons = (new.id, new.activated_at, old.id), None, {}
        for kind in KINDS:
            past = self._database.latest_outcomes(self._asked(kind, settle, old, 0, begun), settings.watch_answers)
            if len(past) < FIRST:
                continue
            self._comparisons[kind] = Comparison(settings.watch_answers, settings.level, len(KINDS))
            for outcome in past:
                self._comparisons[kind].incumbent(outcome.visitor, outcome.value)
            self._last[kind] = (begun, "")

    def _follow(self, pair: Pair, settle: int, until: int) -> Decision | None:
        """The verdict, once there is one."""
        new, old = pair
        for kind, comparison in self._comparisons.items():
            asked = self._asked(kind, settle, new, new.activated_at or 0, until)
            while found := self._database.outcomes_after(asked, self._last[kind], AT_ONCE):
                for outcome in found:
                    self._last[kind] = (outcome.stored, outcome.request_id)
                    look = comparison.candidate(outcome.visitor, outcome.value)
                    if look is not None and look.worse(self._settings.fall):
                        return self._decision(pair, kind, look)
        looks = {kind: comparison.latest for kind, comparison in self._comparisons.items()}
        if not looks or not all(look is not None and look.last for look in looks.values()):
            return None
        evidence = {kind: look.as_dict() for kind, look in looks.items() if look is not None}
        why = f"it earns no less than {old.id} by more than {self._settings.fall:g}, as far as can be told"
        return Decision(f"generation {new.id}", "generation", new.id, old.id, "kept", why, evidence)

    def _decision(self, pair: Pair, kind: str, look: Look) -> Decision:
        new, old = pair
        settings, comparison = self._settings, self._comparisons[kind]
        rule = {
            name: getattr(settings, name) for name in ("reward", "level", "fall", "watch_answers", "settle_seconds")
        }
        why = f"{kind}: upper bound of the difference {look.high:.5f} is below {0.0 - settings.fall:g}"
        evidence = {"kind": kind, "look": look.as_dict(), "looks": comparison.looks, "rule": rule}
        return Decision(f"generation {new.id}", "generation", new.id, old.id, "rolled back", why, evidence)
