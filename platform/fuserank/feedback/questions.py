"""What is asked of a recommender to judge it: each user's past, and the new product that followed."""

import numpy as np
import pyarrow as pa

from fuserank.evaluation.recommend import hold_out
from fuserank.feedback.sequences import HELD_OUT, has_splits, of_splits, user_sequences
from fuserank.records.splits import EVALUATION, TRAINING, VALIDATION

Question = tuple[dict[str, np.ndarray], int]
"""A past, as `user_sequences` has it, and the row of the product that followed."""


def questions(events: pa.Table, product_ids: list[str], split: str = EVALUATION) -> tuple[dict[str, Question], int]:
    """One question a user.

    Split by time: the past is all before the split's events, the answer their first new product. Split by user: of
    users that training never saw, the last product. Else each user's last product, for validation the one before it.

    Args:
        split: EVALUATION or VALIDATION.

    Returns:
        user → question; and how many users have no fair answer.
    """
    if not has_splits(events):
        found = user_sequences(events, product_ids)
        if split == EVALUATION:
            return _last(found, HELD_OUT)
        shorter = {user: {name: array[:-1] for name, array in past.items()} for user, past in found.items()}
        return _last(shorter, HELD_OUT - 1)
    before = [TRAINING, VALIDATION] if split == EVALUATION else [TRAINING]
    later = user_sequences(of_splits(events, [split]), product_ids)
    earlier = user_sequences(of_splits(events, before), product_ids)
    if not later.keys() & earlier.keys():  # by user
        return _last(later, None)
    found = {}
    for user, sequence in later.items():
        seen = set(earlier[user]["rows"].tolist()) if user in earlier else set()
        new = [row for row in sequence["rows"].tolist() if row not in seen]
        if seen and new:
            found[user] = (earlier[user], new[0])
    return found, len(later) - len(found)


def _last(sequences: dict[str, dict[str, np.ndarray]], kept_back: int | None) -> tuple[dict[str, Question], int]:
    """Each user's last product; kept_back: how many last events training has not seen, None for all."""
    found = {}
    for user, sequence in sequences.items():
        rows = sequence["rows"].tolist()
        cut = hold_out(rows, len(rows) if kept_back is None else kept_back)
        if cut is not None:
            found[user] = ({name: array[:cut] for name, array in sequence.items()}, rows[-1])
    return found, len(sequences) - len(found)
