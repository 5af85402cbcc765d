"""What was served becomes training records: by hand on a small log."""

import pyarrow as pa

from fuserank.feedback.served import query_key, served_records
from fuserank.records.schema import EVENT, IMPRESSION

SEARCHES = [("r1", "Red  shoe", "u1"), ("r2", "red shoe", "u2"), ("r3", "hat", "u1")]


def log(*events: tuple[str, str | None, str, str | None]) -> tuple[pa.Table, pa.Table]:
    """Answers of a, b, c to SEARCHES, a recommendation of them; and (type, request, product, user) in order."""
    impressions = [
        dict.fromkeys(IMPRESSION.names)
        | {"request_id": request, "kind": "search", "query": text, "user_id": user, "product_ids": list("abc"),
           "timestamp": n}
        for n, (request, text, user) in enumerate(SEARCHES)
    ]  # fmt: skip
    told = {"request_id": "r4", "kind": "recommend", "product_ids": list("abc"), "timestamp": 9}
    rows = [
        dict.fromkeys(EVENT.names)
        | {"event_id": f"e{n}", "type": kind, "request_id": request, "product_id": product, "user_id": user,
           "timestamp": 1000 + n}
        for n, (kind, request, product, user) in enumerate(events)
    ]  # fmt: skip
    impressions.append(dict.fromkeys(IMPRESSION.names) | told)
    return pa.Table.from_pylist(impressions, IMPRESSION), pa.Table.from_pylist(rows, EVENT)


def test_clicks_name_the_query_and_bring_the_page_that_was_shown() -> None:
    found = served_records(*log(("click", "r1", "b", "u1"), ("click", "r4", "a", "u1"), ("view", None, "c", "u1")))
    rows = {row["event_id"]: row for row in found.events.to_pylist()}
    assert rows["e0"]["query_id"] == query_key("red shoe")
    assert rows["e0"]["position"] == 1
    assert rows["e1"]["query_id"] is None  # a recommendation is no search
    assert rows["e2"]["query_id"] is None
    shown = [row for row in found.events.to_pylist() if row["type"] == "impression"]
    assert [(row["product_id"], row["position"], row["request_id"]) for row in shown] == [
        ("a", 0, "r1"), ("b", 1, "r1"), ("c", 2, "r1"),
    ]  # fmt: skip
    assert found.queries["text"].to_pylist() == ["Red  shoe"] or found.queries["text"].to_pylist() == ["red shoe"]
    assert found.queries["split"].to_pylist() == ["training"]
    assert found.judgments.num_rows == 0  # one user alone judges nothing


def test_two_users_judge_and_buying_counts_more() -> None:
    found = served_records(
        *log(
            ("click", "r1", "a", "u1"),
            ("click", "r2", "a", "u2"),
            ("click", "r1", "b", "u1"),
            ("purchase", "r1", "c", "u1"),
            ("add_to_cart", "r2", "c", "u2"),
            ("click", "r3", "a", "u1"),
            ("click", "r3", "a", "u1"),
        )
    )
    key = query_key("red shoe")
    assert found.judgments.to_pylist() == [
        {"query_id": key, "product_id": "a", "grade": 1.0},
        {"query_id": key, "product_id": "c", "grade": 2.0},
    ]
    assert found.queries.num_rows == 2


def test_what_an_answer_did_not_show_is_no_part_of_it() -> None:
    found = served_records(*log(("click", "r1", "z", "u1"), ("click", "unknown", "a", "u1")))
    assert found.events["query_id"].to_pylist() == [None, None]
    assert found.queries.num_rows == found.judgments.num_rows == 0
