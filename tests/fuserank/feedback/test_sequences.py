"""Histories: what counts as a turn, what training may see, and how long pasts become windows."""

import numpy as np
import pyarrow as pa
import pytest

from fuserank.feedback.sequences import HELD_OUT, pad_history, training_histories, training_sequences, user_sequences
from fuserank.records.schema import EVENT, EVENT_TYPES

IDS = [f"p{n}" for n in range(30)]


def events(*rows: tuple[str | None, str, str, int]) -> pa.Table:
    """(user, product, type, seconds)"""
    return pa.Table.from_pylist(
        [
            {"event_id": str(n), "user_id": user, "product_id": product, "type": kind, "timestamp": second * 1000}
            for n, (user, product, kind, second) in enumerate(rows)
        ],
        EVENT,
    )


def walk(user: str, *products: int) -> list[tuple[str, str, str, int]]:
    return [(user, f"p{p}", "click", 10 * place) for place, p in enumerate(products)]


def test_only_turns_on_known_products_of_known_users() -> None:
    found = user_sequences(
        events(
            ("u", "p1", "impression", 0),
            ("u", "p2", "view", 5),
            ("u", "nowhere", "click", 6),
            ("u", "p3", "dislike", 7),
            ("u", "p4", "remove", 8),
            (None, "p5", "click", 9),
            ("u", "p6", "like", 2),
        ),
        IDS,
    )
    assert list(found) == ["u"]
    assert found["u"]["rows"].tolist() == [6, 2]  # in order of time, whatever the order of the file
    assert found["u"]["times"].tolist() == [2.0, 5.0]
    assert [EVENT_TYPES[t] for t in found["u"]["types"]] == ["like", "view"]


def test_repeats_in_a_row_are_one_turn() -> None:
    found = user_sequences(
        events(
            ("u", "p1", "view", 0),
            ("u", "p1", "click", 1),
            ("u", "p9", "impression", 2),  # no turn, so it does not part the two
            ("u", "p1", "purchase", 3),
            ("u", "p2", "view", 4),
            ("u", "p1", "view", 5),
        ),
        IDS,
    )["u"]
    assert found["rows"].tolist() == [1, 2, 1]
    assert [EVENT_TYPES[t] for t in found["types"]] == ["purchase", "view", "view"]
    assert found["times"].tolist() == [3.0, 4.0, 5.0]


def test_padding_and_gaps() -> None:
    sequences = user_sequences(events(*walk("a", 1, 2, 3, 4), *walk("b", 5)), IDS)
    empty = {name: values[:0] for name, values in sequences["a"].items()}
    found = pad_history([sequences["a"], sequences["b"], empty], 3)
    assert found["rows"].tolist() == [[2, 3, 4], [5, 0, 0], [0, 0, 0]]
    assert found["mask"].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert found["gaps"].tolist() == [[0, 10, 10], [0, 0, 0], [0, 0, 0]]  # the first gap of a window is unknown
    assert {name: values.dtype for name, values in found.items()} == {
        "rows": np.int64,
        "types": np.int64,
        "gaps": np.float32,
        "mask": bool,
    }


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("length", [1, 3, 5])
def test_windows_cover_each_target_once_and_never_the_held_out(count: int, length: int) -> None:
    found = training_histories(events(*walk("u", *range(count))), IDS, length)
    targets: list[int] = []
    for row in range(0 if found is None else len(found["rows"])):
        assert found is not None
        items = found["rows"][row][found["mask"][row]].tolist()
        assert items == list(range(items[0], items[0] + len(items)))
        assert 2 <= len(items) <= length + 1 == found["rows"].shape[1]
        targets += items[1:]
    assert sorted(targets) == list(range(1, count - HELD_OUT))


def test_held_out_are_the_last_turns_after_merging() -> None:
    found = training_histories(events(*walk("u", 1, 2, 3, 4, 4, 5, 5, 5)), IDS, 10)
    assert found is not None
    assert found["rows"][0][found["mask"][0]].tolist() == [1, 2, 3]
    assert HELD_OUT == 2


def test_splits_of_the_events_decide_where_there_are_any() -> None:
    table = events(*walk("u", 1, 2, 3, 4, 5), *walk("v", 6, 7))
    sides = ["training"] * 3 + ["validation", "evaluation", "training", "training"]
    split = table.append_column("split", pa.array(sides))
    assert [s["rows"].tolist() for s in training_sequences(split, IDS)] == [[1, 2, 3], [6, 7]]
    none = table.append_column("split", pa.nulls(7, pa.string()))
    assert [s["rows"].tolist() for s in training_sequences(none, IDS)] == [[1, 2, 3], []]


def test_nobody_has_a_history() -> None:
    assert training_histories(events(*walk("u", 1, 2, 3)), IDS, 4) is None
    assert training_histories(events(), IDS, 4) is None
