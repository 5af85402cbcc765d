"""What a gateway is sent to keep: events and changes of products. Answers once they are durable.

Writes through the feedback and products deployments.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fuserank.store.changes import Kind
from serve import metrics
from serve.admission import Admission
from serve.envelope import Failure, RequestError

Write = Callable[[list[dict[str, Any]]], Awaitable[Any]]
Change = Callable[[Kind, list[Any]], Awaitable[list[dict[str, Any]]]]
EVENT_SECONDS = 10.0  # that a sender waits for events to be durable; a locked database may take longer


class Writes:
    """The gateway's side of durable writes."""

    def __init__(self, admission: Admission, add_events: Write, change_products: Change):
        """As Gateway."""
        self._admission, self._add_events, self._change_products = admission, add_events, change_products

    async def events(self, events: Sequence[Any]) -> dict[str, Any]:
        """Store events; `api.EventsAnswer` as a dict. Returns only once the accepted ones are durable.

        Raises:
            RequestError: 503, the store cannot be written within EVENT_SECONDS; to send again is harmless, whatever
                became of these.
        """
        self._admission.items(events)
        try:
            result = await asyncio.wait_for(self._add_events(list(events)), EVENT_SECONDS)
        except Exception as error:
            failure = Failure(503, "store_unavailable", "The events could not be stored.", "Send them again.")
            raise RequestError(failure, 5) from error
        outcomes = {"accepted": result.accepted, "duplicate": result.duplicates, "rejected": len(result.rejected)}
        for outcome, count in outcomes.items():
            metrics.record("fuserank_events_total", count, outcome=outcome)
        return {"accepted": result.accepted, "duplicates": result.duplicates, "rejected": result.rejected}

    async def change(self, kind: Kind, items: Sequence[Any]) -> dict[str, Any]:
        """Upsert, patch or delete products; `api.ChangesAnswer` as a dict. Returns only once the accepted are durable.

        Raises:
            RequestError: 503, the store cannot be written; nothing was accepted.
        """
        self._admission.items(items)
        try:
            answers = await self._change_products(kind, list(items))
        except Exception as error:
            failure = Failure(503, "store_unavailable", "The products could not be stored.", "Send them again.")
            raise RequestError(failure, 5) from error
        accepted = sum(answer["status"] == "accepted" for answer in answers)
        metrics.record("fuserank_changes_total", accepted, kind=kind, outcome="accepted")
        metrics.record("fuserank_changes_total", len(answers) - accepted, kind=kind, outcome="rejected")
        return {"accepted": accepted, "rejected": len(answers) - accepted, "items": answers}
