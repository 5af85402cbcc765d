"""A batch under which a replica dies is asked of another, and no other failure is repeated."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import RayActorError

from serve.again import Again


class Dying:
    """Raises the given errors one after the other, then answers."""

    def __init__(self, *errors: Exception):
        self.errors, self.calls = list(errors), 0

    async def remote(self, envelopes: list[Any]) -> list[Any]:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return [f"answer to {envelope}" for envelope in envelopes]


def test_another_replica_answers():
    callee = Dying(RayActorError(), RayActorError())
    assert asyncio.run(Again(callee).remote(["a", "b"])) == ["answer to a", "answer to b"]  # type: ignore[arg-type]
    assert callee.calls == 3


@pytest.mark.parametrize(
    ("errors", "calls"), [([RayActorError()] * 9, Again.TRIES), ([RuntimeError("full"), RuntimeError("full")], 1)]
)
def test_it_gives_up(errors: list[Exception], calls: int):
    callee = Dying(*errors)
    with pytest.raises(type(errors[0])):
        asyncio.run(Again(callee).remote([]))
    assert callee.calls == calls
