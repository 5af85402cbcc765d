"""The database as policies and their judges use it. See database.py.

What policies have learnt and how they are switched; canaries; what answers earned; what was decided.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fuserank.store import canaries, decisions, outcomes, policies
from fuserank.store.connected import Connected


class PolicyDatabase(Connected):
    """The part of Database that is about policies and decisions on live answers."""

    def unlearnt(self, reward: str, limit: int) -> policies.Unlearnt:
        """Answers and events that no policy has learnt from; `reward`: the type of event that is one."""
        return self._read(lambda connection: policies.unlearnt(connection, reward, limit))

    def write_policies(self, states: Sequence[policies.PolicyState], done: policies.Unlearnt) -> None:
        """Store what was learnt and from what, in one. Raises StoreError if somebody else has learnt meanwhile."""
        self._writer.run(lambda connection: policies.write(connection, states, done), len(done.events))

    def policy_heads(self) -> tuple[dict[tuple[str, str], int], dict[str, policies.Switch]]:
        """Revision of each (scenario, features) that was learnt in; switches by scenario."""
        return self._read(lambda connection: (policies.heads(connection), policies.switches(connection)))

    def policy_states(self) -> list[policies.PolicyState]:
        """All that policies have learnt."""
        return self._read(policies.read)

    def switch_policy(self, change: policies.Switch) -> None:
        """Choose a policy, or freeze or free its exploration; every gateway follows within a second."""
        self._writer.run(lambda connection: policies.switch(connection, change))

    def begin_canary(self, scenario: str, kind: str, share: float) -> None:
        """Let a policy answer a share of the visitors; it goes on where the same one runs already."""
        self._writer.run(lambda connection: canaries.begin(connection, scenario, kind, share))

    def end_canary(self, canary: canaries.Canary, decision: decisions.Decision) -> bool:
        """Do what was decided; False where the canary has ended already."""
        return self._writer.run(lambda connection: canaries.end(connection, canary, decision))

    def end_canaries(self, scenario: str | None, why: str) -> int:
        """Roll back the canary of a scenario, or every one (None), by hand; how many there were."""
        return self._writer.run(lambda connection: canaries.end_by_hand(connection, scenario, why))

    def note_canary(self, canary: canaries.Canary, stands: Mapping[str, Any]) -> None:
        """Keep how a canary stands."""
        self._writer.run(lambda connection: canaries.note(connection, canary, stands))

    def canaries_seen(self) -> dict[str, Mapping[str, Any] | None]:
        """Scenario → how its canary stood when it was last looked at; None: nobody has looked yet."""
        return self._read(canaries.seen)

    def outcomes_after(self, asked: outcomes.Asked, last: tuple[int, str], limit: int) -> list[outcomes.Earned]:
        """What the next answers beyond `last` (stored, request_id) earned, in that order."""
        return self._read(lambda connection: outcomes.after(connection, asked, last, limit))

    def latest_outcomes(self, asked: outcomes.Asked, limit: int) -> list[outcomes.Earned]:
        """What the latest answers earned, the latest first."""
        return self._read(lambda connection: outcomes.latest(connection, asked, limit))

    def add_decision(self, decision: decisions.Decision) -> bool:
        """Write down a decision that changes nothing; False where it was made already."""
        return self._writer.run(lambda connection: decisions.add(connection, decision))

    def decisions(self) -> list[decisions.Decision]:
        """What was decided on live answers, oldest first."""
        return self._read(decisions.read)
