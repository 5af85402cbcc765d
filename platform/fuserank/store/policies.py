"""What policies have learnt, from which answers and events, and how they are switched. Reads and writes POLICY_STATES,
POLICY_SWITCHES and the mark `learnt` of IMPRESSIONS and EVENTS.

Every answer counts once and every reward once, whatever comes late, twice or in which order: what was learnt and the
marks of what it was learnt from are written in one transaction, and only onto the state that was read.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.errors import StoreError
from fuserank.store import canaries
from fuserank.store.canaries import Canary
from fuserank.store.tables import EVENTS, IMPRESSIONS, POLICY_STATES, POLICY_SWITCHES

ALL = "*"
EVENTS_AT_ONCE = 10  # times the answers taken at once
_UNLEARNT = sa.text("NOT learnt")  # as the partial indexes say it


@dataclass(frozen=True)
class PolicyState:
    """What was learnt in one scenario with one list of features."""

    scenario: str
    features: str  # hash of the features' names
    revision: int
    state: str  # JSON


@dataclass(frozen=True)
class Switch:
    """How the policy of a scenario, or of ALL, is set against the config; None: as the config says."""

    scenario: str
    kind: str | None = None
    frozen: bool | None = None
    canary: Canary | None = None  # set by canaries.begin, not by `switch`


@dataclass(frozen=True)
class LoggedSlate:
    """An answer as a policy learns from it."""

    request_id: str
    kind: str
    features: str  # JSON, as feedback.slate_log writes it
    candidate_ids: tuple[str, ...]
    product_ids: tuple[str, ...]  # shown, in order


@dataclass(frozen=True)
class Unlearnt:
    """What nobody has learnt from yet."""

    answers: list[LoggedSlate] = field(default_factory=list)
    rewarded: set[tuple[str, str]] = field(default_factory=set)  # (request, product) of these answers, so far
    late: dict[str, tuple[LoggedSlate, set[str]]] = field(
        default_factory=dict
    )  # answers that were counted before, with products that earned something only now
    events: set[str] = field(default_factory=set)  # event ids that are hereby done with

    def __bool__(self) -> bool:
        return bool(self.answers or self.events)


def unlearnt(connection: sa.Connection, reward: str, limit: int) -> Unlearnt:
    """At most `limit` answers, oldest first, and the events that waited.

    Args:
        reward: the type of event that is a reward.
    """
    query = sa.select(*_SLATE).where(_UNLEARNT).order_by(IMPRESSIONS.c.stored).limit(limit)
    answers = [_slate(row) for row in connection.execute(query)]
    waiting = sa.select(EVENTS.c.event_id, EVENTS.c.type, EVENTS.c.request_id, EVENTS.c.product_id).where(_UNLEARNT)
    rows = connection.execute(waiting.order_by(EVENTS.c.stored).limit(EVENTS_AT_ONCE * limit)).all()
    events, new = {row.event_id for row in rows}, {answer.request_id for answer in answers}
    rewarded = set()
    for event, request, product, _ in _rewards(connection, reward, new):
        rewarded.add((request, product))
        events.add(event)  # it may have come after the query for those that wait
    asked: dict[str, set[str]] = {}
    for row in rows:
        if row.type == reward and row.request_id not in new:
            asked.setdefault(row.request_id, set()).add(row.product_id)
    for _, request, product, learnt in _rewards(connection, reward, asked):
        if learnt:
            asked[request].discard(product)
    known = sa.select(*_SLATE).where(
        IMPRESSIONS.c.request_id.in_(list(asked)), IMPRESSIONS.c.learnt, IMPRESSIONS.c.features.is_not(None)
    )
    found = [_slate(row) for row in connection.execute(known)] if asked else []
    late = {slate.request_id: (slate, asked[slate.request_id]) for slate in found if asked[slate.request_id]}
    return Unlearnt(answers, rewarded, late, events)


def write(connection: sa.Connection, states: Sequence[PolicyState], done: Unlearnt) -> None:
    """Put states of the next revision in place and mark what they were learnt from.

    Raises:
        StoreError: a state is not the one that was read any more; nothing is written.
    """
    for state in states:
        row = {name: getattr(state, name) for name in ("scenario", "features", "revision", "state")}
        row |= {"updated": time.time_ns() // 1_000_000}
        if state.revision == 1:
            statement = _dialect(connection).insert(POLICY_STATES).on_conflict_do_nothing()
            written = len(connection.execute(statement.returning(POLICY_STATES.c.revision), row).all())
        else:
            key = (POLICY_STATES.c.scenario == state.scenario, POLICY_STATES.c.features == state.features)
            change = sa.update(POLICY_STATES).where(*key, POLICY_STATES.c.revision == state.revision - 1)
            written = connection.execute(change.values(row)).rowcount
        if written != 1:
            raise StoreError(f"another process has learnt in scenario {state.scenario!r} at the same time.")
    marks = ((IMPRESSIONS.c.request_id, [a.request_id for a in done.answers]), (EVENTS.c.event_id, list(done.events)))
    for column, keys in marks:
        for part in _parts(keys):
            connection.execute(sa.update(column.table).where(column.in_(part)).values(learnt=True))


def heads(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """(scenario, features) → revision."""
    columns = (POLICY_STATES.c.scenario, POLICY_STATES.c.features, POLICY_STATES.c.revision)
    return {(scenario, features): revision for scenario, features, revision in connection.execute(sa.select(*columns))}


def read(connection: sa.Connection) -> list[PolicyState]:
    """All that was learnt."""
    columns = (POLICY_STATES.c[name] for name in ("scenario", "features", "revision", "state"))
    return [PolicyState(*row) for row in connection.execute(sa.select(*columns))]


def switch(connection: sa.Connection, change: Switch) -> None:
    """Set what is not None; the rest stays. A kind that is chosen by hand ends the scenario's canary."""
    if change.kind is not None:
        canaries.end_by_hand(connection, change.scenario, f"{change.kind} was chosen")
    row = {"scenario": change.scenario, "changed": time.time_ns() // 1_000_000}
    row |= {name: value for name in ("kind", "frozen") if (value := getattr(change, name)) is not None}
    values = {name: value for name, value in row.items() if name != "scenario"}
    statement = (
        _dialect(connection).insert(POLICY_SWITCHES).on_conflict_do_update(index_elements=["scenario"], set_=values)
    )
    connection.execute(statement, row)


def switches(connection: sa.Connection) -> dict[str, Switch]:
    """By scenario."""
    columns = (POLICY_SWITCHES.c[name] for name in ("scenario", "kind", "frozen"))
    running = {canary.scenario: canary for canary in canaries.read(connection)}
    rows = connection.execute(sa.select(*columns))
    return {row.scenario: Switch(*row, canary=running.get(row.scenario)) for row in rows}


def kinds(switches: Mapping[str, Switch], scenario: str, default: str) -> tuple[str, Canary | None]:
    """The kind of policy that answers a scenario, and the canary beside it. A scenario's own goes before that of ALL.

    Args:
        switches: by scenario; default: the config's kind.
    """
    told = [switches[name] for name in (scenario, ALL) if name in switches]
    kind = next((switch.kind for switch in told if switch.kind is not None), default)
    first = next((switch for switch in told if switch.kind is not None or switch.canary is not None), None)
    canary = first.canary if first is not None else None
    return kind, canary if canary is not None and canary.kind != kind else None


_SLATE = tuple(IMPRESSIONS.c[name] for name in ("request_id", "kind", "features", "candidate_ids", "product_ids"))


def _slate(row: sa.Row) -> LoggedSlate:
    request_id, kind, features, candidates, shown = row
    return LoggedSlate(
        request_id, kind, features, tuple(json.loads(candidates or "[]")), tuple(json.loads(shown or "[]"))
    )


def _rewards(connection: sa.Connection, reward: str, requests: Iterable[str]) -> list[sa.Row]:
    """(event, request, product, learnt) of every reward that any of these answers has earned."""
    columns = (EVENTS.c[name] for name in ("event_id", "request_id", "product_id", "learnt"))
    query = sa.select(*columns).where(EVENTS.c.type == reward)
    return [
        row for part in _parts(list(requests)) for row in connection.execute(query.where(EVENTS.c.request_id.in_(part)))
    ]


def _parts(keys: list[str], size: int = 1000) -> list[list[str]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _dialect(connection: sa.Connection):  # a module
    return postgresql if connection.dialect.name == "postgresql" else sqlite
