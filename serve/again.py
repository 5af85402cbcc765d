"""A deployment that is asked again where a replica dies under a call. Only for calls that may be made twice."""

import logging
from collections.abc import Awaitable

from ray.exceptions import RayActorError

from serve.chain import Callee
from serve.envelope import Envelope, Result

log = logging.getLogger("fuserank.serve")


class Again:
    """Called like the deployment: envelopes in, results out. Raises what the last of TRIES raised."""

    TRIES = 3

    def __init__(self, callee: Callee):
        self._callee = callee

    def remote(self, envelopes: list[Envelope]) -> Awaitable[list[Result]]:
        """One result an envelope."""
        return self._ask(envelopes)

    async def _ask(self, envelopes: list[Envelope]) -> list[Result]:
        for left in reversed(range(self.TRIES)):
            try:
                return await self._callee.remote(envelopes)
            except RayActorError:  # by now the handle knows that replica for dead, or asks it before it is chosen again
                if not left:
                    raise
                log.warning("a replica died under a batch of %d; asking another", len(envelopes))
        raise AssertionError("unreachable")
