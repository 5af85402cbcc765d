"""What was served and what came of it, as records that training reads beside the shop's own: events that name the query
they followed, the queries users typed, and judgments where several users agreed.

Tables in, tables out. A served query is known by its text until `preprocess` finds the shop's own query of that text.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa

from fuserank.records.schema import EVENT, JUDGMENT, QUERY
from fuserank.records.splits import TRAINING

AGREE = 2  # users that clicked a product for a query, or more, judge it
CLICKED, WANTED = 1.0, 2.0  # grades: clicked, or put into the cart, or bought
_WANTED = ("add_to_cart", "purchase")


@dataclass(frozen=True)
class Served:
    """Three tables of one log."""

    events: pa.Table  # EVENT
    queries: pa.Table  # QUERY, of the training split
    judgments: pa.Table  # JUDGMENT


def query_key(text: str) -> str:
    """The id of a typed query: equal for texts that differ in case and spaces alone."""
    return f"served-{hashlib.sha1(' '.join(text.lower().split()).encode()).hexdigest()[:16]}"


def served_records(impressions: pa.Table, events: pa.Table) -> Served:
    """
    Args:
        impressions: IMPRESSION. events: EVENT, those that users sent; an event about an answer to a typed search gets
            that query's id, and the answer's products come before it as impressions if any of them was clicked.
    """
    answers = {row["request_id"]: row for row in impressions.to_pylist() if row["kind"] == "search" and row["query"]}
    rows, users = [], defaultdict(set)
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    clicked: set[str] = set()
    for event in events.to_pylist():
        answer = answers.get(event["request_id"])
        if answer is None or event["product_id"] not in (answer["product_ids"] or []):
            rows.append(event)
            continue
        query = query_key(answer["query"])
        place = event["position"]
        if place is None:
            place = answer["product_ids"].index(event["product_id"])
        rows.append({**event, "query_id": query, "position": place})
        if event["type"] == "click":
            clicked.add(event["request_id"])
        if event["type"] in ("click", *_WANTED):
            who = event["user_id"] or event["session_id"] or event["request_id"]
            users[query, event["product_id"]].add(who)
            if event["type"] in _WANTED:
                wanted[query, event["product_id"]].add(who)
    for request in sorted(clicked):
        answer = answers[request]
        rows += [
            dict.fromkeys(EVENT.names)
            | {
                "event_id": f"{request}:{place}",
                "type": "impression",
                "user_id": answer["user_id"],
                "session_id": answer["session_id"],
                "product_id": product,
                "request_id": request,
                "query_id": query_key(answer["query"]),
                "position": place,
                "timestamp": answer["timestamp"],
            }
            for place, product in enumerate(answer["product_ids"])
        ]
    agreed = {pair: who for pair, who in users.items() if len(who) >= AGREE}
    texts = {query_key(answer["query"]): answer["query"] for answer in answers.values()}
    asked = {query_key(answers[request]["query"]) for request in clicked} | {query for query, _ in agreed}
    return Served(
        pa.Table.from_pylist(rows, EVENT).sort_by([("timestamp", "ascending"), ("event_id", "ascending")]),
        pa.Table.from_pylist(
            [
                dict.fromkeys(QUERY.names)
                | {"query_id": query, "text": texts[query], "split": TRAINING, "group": "served"}
                for query in sorted(asked)
            ],
            QUERY,
        ),
        pa.Table.from_pylist(
            [
                {
                    "query_id": query,
                    "product_id": product,
                    "grade": WANTED if len(wanted[query, product]) >= AGREE else CLICKED,
                }
                for query, product in sorted(agreed)
            ],
            JUDGMENT,
        ),
    )
