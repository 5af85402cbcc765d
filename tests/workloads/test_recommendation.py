"""What is asked of users when events are split by time, by user, or not at all."""

import pyarrow as pa

from fuserank.records.schema import SPLIT_EVENT
from workloads.recommendation import questions

IDS = [f"p{n}" for n in range(10)]


def asked(*rows: tuple[str, int, str | None]) -> tuple[dict[str, tuple[list[int], int]], int]:
    """(user, product, split), a second apart → user → past and answer; and users without."""
    table = [
        {"event_id": str(n), "user_id": user, "product_id": f"p{product}", "type": "click", "timestamp": n * 1000,
         "split": split}
        for n, (user, product, split) in enumerate(rows)
    ]  # fmt: skip
    found, others = questions(pa.Table.from_pylist(table, schema=SPLIT_EVENT), IDS)
    return {user: (past["rows"].tolist(), answer) for user, (past, answer) in found.items()}, others


def test_by_time_the_first_new_product_after_the_cut() -> None:
    old, new = "training", "evaluation"
    rows = [("u", 1, old), ("u", 2, "validation"), ("v", 3, old), ("u", 2, new), ("u", 5, new), ("u", 6, new)]
    assert asked(*rows, ("v", 3, new), ("w", 4, new)) == ({"u": ([1, 2], 5)}, 2)  # v: nothing new; w: no past


def test_by_user_the_last_product_of_users_never_seen() -> None:
    rows = [("u", 1, "training"), ("u", 2, "training"), ("v", 3, "evaluation"), ("v", 4, "evaluation")]
    assert asked(*rows, ("v", 5, "evaluation"), ("w", 6, "evaluation")) == ({"v": ([3, 4], 5)}, 1)


def test_without_splits_the_last_product() -> None:
    assert asked(("u", 1, None), ("u", 2, None), ("u", 3, None), ("v", 4, None)) == ({"u": ([1, 2], 3)}, 1)
