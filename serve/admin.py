"""Administration over HTTP, for keys with the scope `admin`; off unless serve.guard.administration is on."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi import Path as AnyPath
from pydantic import BaseModel, Field

from fuserank.errors import InputError, StoreError
from fuserank.store.database import Database
from fuserank.store.keys import ApiKey, Scope, make, milliseconds, successor
from serve import api
from serve.answer import Answer
from serve.envelope import Failure, RequestError, failure
from serve.generations import ask_for, listing
from serve.guard import needs

ERRORS: dict[int | str, dict[str, Any]] = {
    422: {"model": api.ErrorAnswer, "description": "a field is invalid, or there is no such key"},
    503: {"model": api.ErrorAnswer, "description": "the database cannot be written"},
}
KeyId = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]


class KeyRequest(api.Body):
    """A key to make."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)]
    seconds: Annotated[float, Field(gt=0, lt=1e10)] | None = Field(None, description="how long it is valid")
    rate: Annotated[float, Field(gt=0, lt=1e10)] | None = Field(None, description="requests a second")


class Rotation(api.Body):
    """How a key is replaced."""

    grace_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        86_400, description="how long the old key stays valid"
    )


class KeyInfo(BaseModel):
    """What is known of a key."""

    id: str
    name: str
    scopes: list[Scope]
    created: int = Field(description="ms since 1970")
    expires: int | None = Field(description="ms since 1970")
    rate: float | None
    state: Literal["valid", "ended"]


class NewKey(KeyInfo):
    """A key that was just made."""

    key: str = Field(description="the key itself, shown this once")


class Keys(BaseModel):
    """All keys there ever were."""

    keys: list[KeyInfo]


def add_administration(app: FastAPI, database: Database) -> None:
    """Give the app its endpoints below /v1/admin."""
    options: dict[str, Any] = {"responses": ERRORS, "tags": ["administration"]}

    @app.get("/v1/admin/keys", response_model=Keys, **options)
    @needs("admin", always=True)
    async def keys() -> Answer:
        """The API keys, without their secrets."""
        return Answer({"keys": [_info(key) for key in await run(database.api_keys)]})

    @app.post("/v1/admin/keys", response_model=NewKey, **options)
    @needs("admin", always=True)
    async def create(request: KeyRequest) -> Answer:
        """Make a key; it is shown this once."""
        key, stored = make(request.name, request.scopes, request.seconds, request.rate)
        await run(database.add_key, stored)
        return Answer(_info(stored) | {"key": key})

    @app.post("/v1/admin/keys/{key_id}/rotate", response_model=NewKey, **options)
    @needs("admin", always=True)
    async def rotate(key_id: KeyId, rotation: Rotation) -> Answer:
        """Make a key in the place of another."""

        def work() -> tuple[str, ApiKey]:
            key, stored = successor(key_id, database.api_keys())
            database.rotate_key(key_id, stored, milliseconds() + round(1000 * rotation.grace_seconds))
            return key, stored

        key, stored = await run(work)
        return Answer(_info(stored) | {"key": key})

    @app.post("/v1/admin/keys/{key_id}/revoke", response_model=Keys, **options)
    @needs("admin", always=True)
    async def revoke(key_id: KeyId) -> Answer:
        """End a key; gateways refuse it within a second."""
        await run(database.revoke_key, key_id)
        return Answer({"keys": [_info(key) for key in await run(database.api_keys)]})


def add_generations(app: FastAPI, database: Database, index: Path) -> None:
    """Give the app its endpoint to switch generations."""

    @app.post(
        "/v1/generations/{generation}/activate",
        status_code=202,
        response_model=api.Generation,
        responses={404: {"model": api.ErrorAnswer, "description": "no such generation"}, 503: ERRORS[503]},
        tags=["administration"],
    )
    @needs("admin", always=True)
    async def activate(generation: Annotated[str, AnyPath(max_length=256)]) -> Answer:
        """Make a generation ready on every replica and answer from it then; an earlier one to roll back.

        Answers at once. `GET /v1/generations` shows how far it is, and the reason if it cannot be had.
        """
        try:
            await asyncio.to_thread(ask_for, database, index, generation)
        except InputError as error:
            raise RequestError(Failure(404, "unknown_generation", error.message, error.hint)) from None
        except StoreError as error:
            raise RequestError(failure(error), 5) from error
        found = {row["id"]: row for row in await run(listing, database, index)}
        return Answer(found[generation], 202)


async def run(work: Any, *arguments: Any) -> Any:
    """`work` in a thread; what the store or the input is to blame for becomes the answer."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except (InputError, StoreError) as error:
        raise RequestError(failure(error), 5 if isinstance(error, StoreError) else None) from error


def _info(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": key.created,
        "expires": key.expires,
        "rate": key.rate,
        "state": "valid" if key.active() else "ended",
    }
