"""A live user's turns are what training makes of the same events."""

import datetime
import random

from fuserank.feedback.history import recent_events, turns
from fuserank.feedback.sequences import POSITIVE, user_sequences
from fuserank.records.schema import EVENT, EVENT_TYPES
from fuserank.store.database import Database, run_database


def test_serving_and_training_see_the_same_history(tmp_path):
    choose = random.Random(5)
    products = [f"p{i}" for i in range(6)]
    start = datetime.datetime(2026, 3, 1)
    events = [
        {
            "event_id": f"e{i:03d}",
            "type": choose.choice(EVENT_TYPES),
            "user_id": choose.choice(["u1", "u2"]),
            "product_id": choose.choice([*products, "gone"]),
            "timestamp": (start + datetime.timedelta(seconds=7 * i)).isoformat(),
        }
        for i in range(300)
    ]
    choose.shuffle(events)
    with Database(run_database(tmp_path)[1]) as database:
        database.add_events(events)
        live = {user: recent_events(database, user, 1000) for user in ("u1", "u2")}
        trained = user_sequences(database.read_events(), products)
        assert database.read_events().schema == EVENT
    row_of = {product: row for row, product in enumerate(products)}
    for user, found in live.items():
        known = [
            (row_of[e["product_id"]], e["type"], e["timestamp"] / 1000) for e in found if e["product_id"] in row_of
        ]
        expected = trained[user]
        got = turns(known)
        assert [row for row, _, _ in got] == expected["rows"].tolist()
        assert [EVENT_TYPES.index(kind) for _, kind, _ in got] == expected["types"].tolist()
        assert [when for _, _, when in got] == expected["times"].tolist()


def test_the_limit_counts_positive_events_only(tmp_path):
    events = [
        {"type": kind, "user_id": "u", "product_id": "p", "timestamp": 1_772_359_200_000 + i}
        for i, kind in enumerate(["click", "view", *["impression"] * 50])
    ]
    with Database(run_database(tmp_path)[1]) as database:
        database.add_events(events)
        assert [event["type"] for event in recent_events(database, "u", 2)] == ["click", "view"]


def test_runs_on_one_product_are_one_turn():
    events = [(1, "view", 0.0), (1, "dislike", 1.0), (1, "purchase", 2.0), (2, "click", 3.0), (1, "click", 4.0)]
    assert turns(events) == [(1, "purchase", 2.0), (2, "click", 3.0), (1, "click", 4.0)]
    assert turns([(1, kind, 0.0) for kind in EVENT_TYPES if kind not in POSITIVE]) == []
