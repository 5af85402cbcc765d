"""A live user's past, by the rules that training_histories (feedback/sequences.py) applies to events.parquet.

Only events that say what a user turned to count, and events on one product in a row are one turn to it. A recommender
served other histories than it was trained on would be wrong without any error: a test holds the two together. Reads the
store, writes nothing.
"""

from collections.abc import Iterable
from typing import Any

from fuserank.feedback.sequences import POSITIVE
from fuserank.store.database import Database

TYPES = (*POSITIVE, "dislike", "remove")
"""What is read of a user: what is learnt from, and what must not be recommended again."""
HISTORY = 200
"""Events of these types that are read, the latest."""

Turn = tuple[int, str, float]
"""Product row, event type, time in seconds."""


def turns(events: Iterable[Turn]) -> list[Turn]:
    """Events, oldest first → turns: other types than POSITIVE left out, runs on one product merged to their last."""
    found: list[Turn] = []
    for event in events:
        if event[1] not in POSITIVE:
            continue
        if found and found[-1][0] == event[0]:
            found[-1] = event
        else:
            found.append(event)
    return found


def recent_events(database: Database, user_id: str, limit: int) -> list[dict[str, Any]]:
    """The user's last `limit` events of POSITIVE types, oldest first (fields of EVENT, timestamps in ms).

    Raises:
        StoreError: the database failed.
    """
    return database.recent_events(user_id, limit, POSITIVE)
