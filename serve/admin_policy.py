"""Administration of the policies that order live answers: what they have learnt, and how they are switched."""

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field, model_validator

from fuserank.config.online import PolicyKind, Scenario
from fuserank.store.database import Database
from fuserank.store.policies import ALL, Switch
from serve import api
from serve.admin import ERRORS, run
from serve.answer import Answer
from serve.guard import needs

SHOWN = 100  # decisions


class SwitchRequest(api.Body):
    """What to change; whatever is left out stays."""

    scenario: Scenario | None = Field(None, description="whose policy; all of them if left out")
    kind: PolicyKind | None = Field(None, description="the policy that answers; it goes on from what was learnt")
    frozen: bool | None = Field(None, description="true ends exploration of any kind within a second")
    canary: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="the kind answers this share of the visitors first; 0 ends the canary that runs"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "SwitchRequest":
        if self.kind is None and self.frozen is None and self.canary is None:
            raise ValueError("give kind, frozen or canary")
        if self.canary and self.kind is None:
            raise ValueError("a canary needs a kind; canary 0 ends the one that runs")
        return self


class Learnt(BaseModel):
    """What was learnt in one scenario with one list of features."""

    scenario: str
    version: str = Field(description="as in an answer's policy@version")
    revision: int = Field(description="how often it was written")
    shown: int = Field(description="products shown that it has learnt from")
    features: list[str]


class PolicySwitch(BaseModel):
    """How a scenario is set against the config."""

    scenario: Scenario | Literal["*"]
    kind: str | None = Field(description="null: as the config says")
    frozen: bool | None = Field(description="null: as the config says")


class Looked(BaseModel):
    """A canary's own answers against the incumbent's at the last look that counts; rewards a position."""

    answers: int
    incumbent_answers: int
    visitors: int
    incumbent_visitors: int
    mean: float
    incumbent_mean: float
    difference: float
    low: float | None = Field(description="of the difference, at the error one look may have; null: too few visitors")
    high: float | None
    last: bool = Field(description="there is none after it")


class Standing(BaseModel):
    """How a canary stands, as it was last looked at (`policy.watch_seconds`)."""

    at: int = Field(description="ms since 1970")
    incumbent: str = Field(description="the kind that answers the others")
    answers: int = Field(description="of the canary so far, that are old enough to be judged")
    incumbent_answers: int
    difference: float | None = Field(description="of the rewards a position so far; null before both have answered")
    look: Looked | None = Field(description="null before the first")


class CanaryInfo(BaseModel):
    """A policy that answers a share of the visitors."""

    scenario: Scenario | Literal["*"]
    kind: str
    share: float
    since: int = Field(description="ms since 1970")
    standing: Standing | None = Field(description="null: not looked at yet")


class Decided(BaseModel):
    """What was decided on live answers."""

    at: int = Field(description="ms since 1970")
    subject: Literal["policy", "generation"]
    scenario: str | None
    candidate: str
    incumbent: str | None
    outcome: Literal["promoted", "rolled back", "ended without proof", "ended by hand", "kept"]
    why: str
    evidence: dict[str, Any]


class Policies(BaseModel):
    """The policies of the service."""

    learnt: list[Learnt]
    switches: Annotated[list[PolicySwitch], Field(description="one of a scenario's own goes before the one of *")]
    canaries: list[CanaryInfo]
    decisions: Annotated[list[Decided], Field(description="the latest 100, the latest first")]


def add_policies(app: FastAPI, database: Database) -> None:
    """Give the app its endpoints /v1/admin/policy."""
    options: dict[str, Any] = {"response_model": Policies, "responses": ERRORS, "tags": ["administration"]}

    @app.get("/v1/admin/policy", **options)
    @needs("admin", always=True)
    async def policies() -> Answer:
        """What policies have learnt, and how they are switched."""
        return Answer(await run(_shown, database))

    @app.post("/v1/admin/policy", **options)
    @needs("admin", always=True)
    async def switch(request: SwitchRequest) -> Answer:
        """Choose the policy that answers, all or a share of the visitors, or freeze or free its exploration.

        Every gateway follows within a second.
        """
        await run(_switch, database, request)
        return Answer(await run(_shown, database))


def _switch(database: Database, request: SwitchRequest) -> None:
    scenario, kind = request.scenario or ALL, request.kind
    if request.canary == 0:
        database.end_canaries(request.scenario, "asked for over HTTP")
    if request.canary and kind is not None:
        database.begin_canary(scenario, kind, request.canary)
        kind = None
    if kind is not None or request.frozen is not None:
        database.switch_policy(Switch(scenario, kind, request.frozen))


def _shown(database: Database) -> dict[str, Any]:
    _, switches = database.policy_heads()
    seen, decisions = database.canaries_seen(), database.decisions()
    learnt = []
    for row in database.policy_states():
        state = json.loads(row.state)
        told = {"version": state["version"], "shown": state["shown"], "features": state["names"]}
        learnt.append({"scenario": row.scenario, "revision": row.revision, **told})
    return {
        "learnt": learnt,
        "switches": [{"scenario": s.scenario, "kind": s.kind, "frozen": s.frozen} for s in switches.values()],
        "canaries": [
            asdict(s.canary) | {"standing": seen.get(s.scenario)} for s in switches.values() if s.canary is not None
        ],
        "decisions": [asdict(decision) for decision in reversed(decisions[-SHOWN:])],
    }
