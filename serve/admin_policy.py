"""Administration of the policies that order live answers: what they have learnt, and how they are switched."""

import json
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


class SwitchRequest(api.Body):
    """What to change; whatever is left out stays."""

    scenario: Scenario | None = Field(None, description="whose policy; all of them if left out")
    kind: PolicyKind | None = Field(None, description="the policy that answers; it goes on from what was learnt")
    frozen: bool | None = Field(None, description="true ends exploration of any kind within a second")

    @model_validator(mode="after")
    def _changes_something(self) -> "SwitchRequest":
        if self.kind is None and self.frozen is None:
            raise ValueError("give kind or frozen")
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


class Policies(BaseModel):
    """The policies of the service."""

    learnt: list[Learnt]
    switches: Annotated[list[PolicySwitch], Field(description="one of a scenario's own goes before the one of *")]


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
        """Choose the policy that answers, or freeze or free its exploration; every gateway follows within a second."""
        await run(database.switch_policy, Switch(request.scenario or ALL, request.kind, request.frozen))
        return Answer(await run(_shown, database))


def _shown(database: Database) -> dict[str, Any]:
    _, switches = database.policy_heads()
    learnt = []
    for row in database.policy_states():
        state = json.loads(row.state)
        told = {"version": state["version"], "shown": state["shown"], "features": state["names"]}
        learnt.append({"scenario": row.scenario, "revision": row.revision, **told})
    return {
        "learnt": learnt,
        "switches": [{"scenario": s.scenario, "kind": s.kind, "frozen": s.frozen} for s in switches.values()],
    }
