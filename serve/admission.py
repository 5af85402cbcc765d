"""What a request may ask for, whoever asks: hits, items, nesting, the size of its media. Refusals are RequestErrors."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fuserank.errors import MediaError
from serve.envelope import Failure, RequestError
from serve.media_limits import MediaLimits
from serve.nesting import refuse_deep

REFUSAL_SECONDS = 1.0


class Admission:
    """The gateway's limits."""

    def __init__(self, max_limit: int, max_items: int, media: MediaLimits):
        """
        Args:
            max_limit: largest `limit` of one answer.
            max_items: products, events or ids of one request.
        """
        self.max_limit, self.max_items, self.media_limits = max_limit, max_items, media

    def limit(self, limit: int) -> None:
        """Hits asked for."""
        if limit > self.max_limit:
            raise RequestError(Failure(422, "bad_request", f"limit: at most {self.max_limit}.", "Page with `offset`."))

    def items(self, items: Sequence[Any]) -> None:
        """Products, events or ids sent."""
        refuse_deep(list(items), "body")
        if len(items) > self.max_items:
            what = f"{len(items)} in one request, at most {self.max_items}."
            raise RequestError(Failure(422, "too_many_items", what, "Send them in several requests."))

    async def media(self, media: Mapping[str, Any]) -> None:
        """A query's picture and sound."""
        try:
            for modality, data in media.items():
                if modality != "text":
                    await asyncio.to_thread(self.media_limits.check, modality, data)
        except MediaError as error:
            raise RequestError(Failure(413, "too_large", error.message, error.hint)) from None


async def too_busy(left: float, wait: float) -> RequestError:
    """The refusal of a request that would wait too long.

    It comes slowly, so that its sender does not ask again at once and its place at the gateway, of which the proxy in
    front knows a fixed number, is not given to the next one to be refused: refusing took all the time there was.

    Args:
        left: seconds until the request's deadline. wait: seconds that it would have had to wait.
    """
    await asyncio.sleep(max(0.0, min(REFUSAL_SECONDS, left)))
    failure = Failure(429, "too_busy", "Too many requests are waiting.", "Try again after Retry-After seconds.")
    return RequestError(failure, 1 + int(wait))
