"""Events → the padded arrays the recommender reads; the same for training and for a live user.

U users · T events of a history.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fuserank.records.schema import EVENT_TYPES
from fuserank.records.splits import TRAINING, VALIDATION

POSITIVE = ("view", "click", "add_to_cart", "purchase", "like")
"""Event types that say what a user turned to; impressions, dislikes and removals do not."""
HELD_OUT = 2
"""Last positives of every user that training never sees: the last is the test, the one before it validation."""


def user_sequences(events: pa.Table, product_ids: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Each user's positive events on known products in time order, repeats of the same product in a row merged.

    Returns:
        user → `rows` int64, `types` int64, `times` float64 (seconds), each [number of events].
    """
    row_of = {product: row for row, product in enumerate(product_ids)}
    type_of = {name: place for place, name in enumerate(EVENT_TYPES)}
    kept: dict[str, list[tuple[float, int, int]]] = {}
    columns = (events[c].to_pylist() for c in ("user_id", "product_id", "type"))
    times = events["timestamp"].cast(pa.int64()).to_numpy() / 1000
    for user, product, kind, time in zip(*columns, times, strict=True):
        if user is not None and kind in POSITIVE and product in row_of:
            kept.setdefault(user, []).append((time, row_of[product], type_of[kind]))
    return {user: _arrays(sorted(found, key=lambda e: e[0])) for user, found in sorted(kept.items())}


def _arrays(events: list[tuple[float, int, int]]) -> dict[str, np.ndarray]:
    """A view, click and purchase of one product in a row are one turn to it: the last, strongest type stays."""
    merged: list[tuple[float, int, int]] = []
    for event in events:
        if merged and merged[-1][1] == event[1]:
            merged[-1] = event
        else:
            merged.append(event)
    return {
        "rows": np.array([e[1] for e in merged], np.int64),
        "types": np.array([e[2] for e in merged], np.int64),
        "times": np.array([e[0] for e in merged], np.float64),
    }


def sequence(turns: Sequence[tuple[int, str, float]]) -> dict[str, np.ndarray]:
    """Turns (feedback/history.py) as one of `user_sequences`."""
    rows, types, times = zip(*turns, strict=True) if turns else ((), (), ())
    return {
        "rows": np.array(rows, np.int64),
        "types": np.array([EVENT_TYPES.index(kind) for kind in types], np.int64),
        "times": np.array(times, np.float64),
    }


def pad_history(sequences: list[dict[str, np.ndarray]], length: int) -> dict[str, np.ndarray]:
    """The last `length` events of each sequence, oldest first, padded on the right.

    Returns:
        `rows` int64 (0 if padded), `types` int64, `gaps` float32 (seconds since the event before), `mask` bool: [U, T].
    """
    shape = (len(sequences), length)
    out = {
        "rows": np.zeros(shape, np.int64),
        "types": np.zeros(shape, np.int64),
        "gaps": np.zeros(shape, np.float32),
        "mask": np.zeros(shape, bool),
    }
    for user, sequence in enumerate(sequences):
        count = min(length, len(sequence["rows"]))
        if not count:
            continue
        times = sequence["times"][-count:]
        out["rows"][user, :count] = sequence["rows"][-count:]
        out["types"][user, :count] = sequence["types"][-count:]
        out["gaps"][user, 1:count] = np.diff(times)
        out["mask"][user, :count] = True
    return out


def has_splits(events: pa.Table) -> bool:
    """Whether the events themselves say what is for training (records.splits)."""
    return "split" in events.column_names and events["split"].null_count < events.num_rows


def of_splits(events: pa.Table, splits: Collection[str]) -> pa.Table:
    """The events of some splits."""
    return events.filter(pc.call_function("is_in", [events["split"]], pc.SetLookupOptions(pa.array(list(splits)))))


def training_sequences(
    events: pa.Table, product_ids: list[str], validated: bool = False
) -> list[dict[str, np.ndarray]]:
    """`user_sequences` as training may see them: of the events for training, or without each user's last HELD_OUT.

    Args:
        validated: with what validation asked: for what is only counted, once everything is chosen.
    """
    if has_splits(events):
        kept = [TRAINING, VALIDATION] if validated else [TRAINING]
        return list(user_sequences(of_splits(events, kept), product_ids).values())
    every, held = user_sequences(events, product_ids).values(), HELD_OUT - validated
    return [{name: values[:-held] for name, values in sequence.items()} for sequence in every]


def training_histories(events: pa.Table, product_ids: list[str], length: int) -> dict[str, np.ndarray] | None:
    """Histories of `length` inputs and one target more from what training may see; None if there are none."""
    sequences = []
    for kept in training_sequences(events, product_ids):
        for stop in range(len(kept["rows"]), 1, -length):  # long histories become several windows
            sequences.append({name: values[max(0, stop - length - 1) : stop] for name, values in kept.items()})
    return pad_history(sequences, length + 1) if sequences else None
