"""HTTP: what the service holds of a user is erased on request."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi import Path as AnyPath
from pydantic import BaseModel, Field

from fuserank.store.erasures import Erased
from serve.answer import Answer
from serve.current import request_id
from serve.envelope import Failure, RequestError
from serve.guard import needs

Erase = Callable[[str], Awaitable[Erased]]


class ErasureAnswer(BaseModel):
    """What was erased; it is gone from the database when this is answered."""

    request_id: str
    events: int = Field(description="events deleted, those of the same sessions without a user among them")
    impressions: int = Field(description="answers deleted from the log")


def add_users(app: FastAPI, erase: Erase, errors: dict[int | str, dict[str, Any]]) -> None:
    """Give the app its endpoint."""

    @app.delete("/v1/users/{user_id:path}", response_model=ErasureAnswer, responses=errors, tags=["feedback"])
    @needs("write")
    async def erase_user(user_id: Annotated[str, AnyPath(min_length=1, max_length=256)]) -> Answer:
        """Erase a user: events and logged answers at once, the run's files within seconds.

        Events and answers from before this moment that arrive later are refused; later ones are of somebody new.
        """
        try:
            erased = await erase(user_id)
        except Exception as error:
            failure = Failure(503, "store_unavailable", "The user could not be erased.", "Ask again.")
            raise RequestError(failure, 5) from error
        return Answer({"request_id": request_id(), "events": erased.events, "impressions": erased.impressions})
