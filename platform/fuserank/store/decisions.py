"""What was decided on live answers, with the evidence. Reads and writes DECISIONS.

A decision's id says what it is about – one canary, one generation – so that whoever comes second finds it made.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.store.tables import DECISIONS

Subject = Literal["policy", "generation"]
Outcome = Literal["promoted", "rolled back", "ended without proof", "ended by hand", "kept"]


@dataclass(frozen=True)
class Decision:
    """One decision."""

    id: str
    subject: Subject
    candidate: str  # the policy's kind, or the generation
    incumbent: str | None  # None: nobody looked
    outcome: Outcome
    why: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    scenario: str | None = None  # of a policy
    at: int = 0  # ms since 1970, set when it is written


def add(connection: sa.Connection, decision: Decision) -> bool:
    """Write it down; False, and nothing is written, where it was made already."""
    row = {name: getattr(decision, name) for name in _COLUMNS}
    row |= {"at": time.time_ns() // 1_000_000, "evidence": json.dumps(decision.evidence, allow_nan=False)}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(DECISIONS).on_conflict_do_nothing().returning(DECISIONS.c.id)
    return len(connection.execute(statement, row).all()) == 1


def read(connection: sa.Connection) -> list[Decision]:
    """All, oldest first."""
    query = sa.select(*(DECISIONS.c[name] for name in _COLUMNS)).order_by(DECISIONS.c.at, DECISIONS.c.id)
    rows = (dict(row) for row in connection.execute(query).mappings())
    return [Decision(**(row | {"evidence": json.loads(row["evidence"])})) for row in rows]


_COLUMNS = ("id", "at", "subject", "scenario", "candidate", "incumbent", "outcome", "why", "evidence")
