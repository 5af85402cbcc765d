"""Which rows are for training, validation and evaluation: by a hash of the row's own key, or by time. Reads nothing."""

import hashlib
from collections.abc import Collection
from typing import Literal

import numpy as np
import pyarrow as pa

from fuserank.records.schema import SPLIT_EVENT

TRAINING, VALIDATION, EVALUATION = SPLITS = ("training", "validation", "evaluation")


def bucket(key: str, modulus: int) -> int:
    """int(sha1(key), 16) % modulus, the key in UTF-8."""
    return int(hashlib.sha1(key.encode("utf-8", "replace")).hexdigest(), 16) % modulus


def split_of(key: str, modulus: int, validation: Collection[int], evaluation: Collection[int]) -> str:
    """The split of a row by its key, lower-cased, so that equal keys are never on both sides."""
    place = bucket(key.lower(), modulus)
    return EVALUATION if place in evaluation else VALIDATION if place in validation else TRAINING


def split_events(
    events: pa.Table, by: Literal["last", "time", "user"], validation: float, evaluation: float
) -> pa.Table:
    """EVENT → SPLIT_EVENT.

    Args:
        by: `time`: events of one moment are on one side, and none of a later side is earlier; `user`: a user's events
            are on one side; `last`: no split, because whoever reads the events holds out each user's last.
        validation, evaluation: shares of the events, or of the users.
    """
    names: list[str | None] = [None] * events.num_rows
    if by == "user":
        names = [_side(_share(user), validation, evaluation) for user in events["user_id"].to_pylist()]
    elif by == "time" and events.num_rows:
        times = events["timestamp"].cast(pa.int64()).to_numpy()
        ordered, count = np.sort(times), len(times)
        later = np.zeros(count, int)
        for share in (validation + evaluation, evaluation):
            if share > 0:
                later += times >= ordered[min(count - 1, int(np.ceil(count * (1 - share))))]
        later[(later == 1) & (validation == 0)] = 2
        names = [SPLITS[place] for place in later.tolist()]
    return pa.table([*events.columns, pa.array(names, pa.string())], schema=SPLIT_EVENT)


def _share(user: str | None) -> float:
    """A number in [0, 1) that only the id decides; events of nobody are for training."""
    return 0.0 if user is None else bucket(user, 1_000_000) / 1_000_000


def _side(share: float, validation: float, evaluation: float) -> str:
    return EVALUATION if share >= 1 - evaluation else VALIDATION if share >= 1 - evaluation - validation else TRAINING
