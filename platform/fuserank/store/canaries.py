"""Policies that answer a share of the visitors first. Reads and writes POLICY_SWITCHES and DECISIONS.

Whoever ends a canary ends the one that was judged – of this scenario, kind and beginning – and writes down why in the
same transaction: of two judges, or a judge and a human, one comes first and the other changes nothing.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.store import decisions
from fuserank.store.decisions import Decision, Outcome
from fuserank.store.tables import POLICY_SWITCHES


@dataclass(frozen=True)
class Canary:
    """One canary."""

    scenario: str  # or ALL
    kind: str
    share: float  # of the visitors, 0 … 1
    since: int  # ms since 1970

    def decision(
        self, outcome: Outcome, why: str, incumbent: str | None = None, evidence: Mapping[str, Any] | None = None
    ) -> Decision:
        """The one decision on it."""
        identity = f"policy {self.scenario} {self.kind} {self.since}"
        return Decision(identity, "policy", self.kind, incumbent, outcome, why, evidence or {}, self.scenario)


def begin(connection: sa.Connection, scenario: str, kind: str, share: float) -> None:
    """Let a kind answer a share of the visitors; one of the same kind and share goes on, another one ends by hand."""
    now = time.time_ns() // 1_000_000
    for canary in read(connection):
        if canary.scenario == scenario:
            if (canary.kind, canary.share) == (kind, share):
                return
            end_by_hand(connection, scenario, f"a canary of {kind} began")
    values = {"canary": kind, "share": share, "since": now, "seen": None, "changed": now}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(POLICY_SWITCHES).on_conflict_do_update(index_elements=["scenario"], set_=values)
    connection.execute(statement, {"scenario": scenario} | values)


def end(connection: sa.Connection, canary: Canary, decision: Decision) -> bool:
    """Do what was decided on this canary; False, and nothing changes, where it has ended already."""
    promoted = {"kind": canary.kind} if decision.outcome == "promoted" else {}
    gone = dict.fromkeys(("canary", "share", "since", "seen"))
    change = sa.update(POLICY_SWITCHES).where(*_of(canary)).values(**promoted, **gone, changed=time.time_ns() // 10**6)
    return connection.execute(change).rowcount == 1 and decisions.add(connection, decision)


def end_by_hand(connection: sa.Connection, scenario: str | None, why: str) -> int:
    """Roll back the canary of a scenario, or every one (None); how many there were."""
    count = 0
    for canary in read(connection):
        if scenario in (None, canary.scenario):
            stands = seen(connection).get(canary.scenario) or {}
            count += end(connection, canary, canary.decision("ended by hand", why, stands.get("incumbent"), stands))
    return count


def note(connection: sa.Connection, canary: Canary, stands: Mapping[str, Any]) -> None:
    """Keep how it stands, for whoever wants to see it; not once it has ended."""
    text = json.dumps(stands, allow_nan=False)
    connection.execute(sa.update(POLICY_SWITCHES).where(*_of(canary)).values(seen=text))


def read(connection: sa.Connection) -> list[Canary]:
    """Those that run."""
    columns = (POLICY_SWITCHES.c[name] for name in ("scenario", "canary", "share", "since"))
    return [Canary(*row) for row in connection.execute(sa.select(*columns)) if row.canary is not None]


def seen(connection: sa.Connection) -> dict[str, Mapping[str, Any] | None]:
    """Scenario → how its canary stood when it was last looked at; None: not yet."""
    columns = (POLICY_SWITCHES.c[name] for name in ("scenario", "canary", "seen"))
    rows = connection.execute(sa.select(*columns)).all()
    return {row.scenario: row.seen and json.loads(row.seen) for row in rows if row.canary is not None}


def _of(canary: Canary) -> tuple[Any, ...]:
    columns = POLICY_SWITCHES.c
    return (
        columns.scenario == canary.scenario, columns.canary == canary.kind, columns.since == canary.since
    )  # fmt: skip
