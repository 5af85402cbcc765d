"""Behaviour, positions and pasts counted by hand; what comes after a moment changes nothing before it."""

import numpy as np
import pyarrow as pa
import pytest

from fuserank.errors import ModelError
from fuserank.feedback.behaviour import PRIOR, Behaviour, count_behaviour
from fuserank.feedback.positions import position_propensities
from fuserank.feedback.search_sessions import Pasts, search_sessions
from fuserank.records.schema import EVENT

IDS = ["a", "b", "c", "d"]


def event(number: int, kind: str, product: str, time: int, user: str | None = "u", **more) -> dict:
    return {"event_id": f"e{number}", "type": kind, "user_id": user, "product_id": product, "timestamp": time, **more}


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, EVENT)


LOG = [
    event(0, "impression", "a", 1000, query_id="q", request_id="r1", position=0),
    event(1, "click", "a", 1000, query_id="q", request_id="r1", position=0),
    event(2, "view", "a", 1001, query_id="q", request_id="r1", position=0),
    event(3, "impression", "b", 1002, query_id="q", request_id="r1", position=1),
    event(4, "click", "b", 2000),
    event(5, "click", "c", 3000, user="v"),
    event(6, "click", "a", 3001, user="v"),
    event(7, "dislike", "d", 3500),
    event(8, "impression", "c", 4000, query_id="q", request_id="r2", position=0),
    event(9, "click", "d", 5000, query_id="q", request_id="r3", position=2),
]


def test_behaviour_by_hand() -> None:
    found = count_behaviour(table(LOG), IDS, before=5000)
    turned = np.array([2, 1, 1, 0])  # a's click and view are one turn
    np.testing.assert_allclose(found.popularity, np.log1p(turned / turned.mean()), rtol=1e-6)
    shown, clicked, average = np.array([1, 1, 1, 0]), np.array([2, 1, 1, 0]), 1.0  # more clicks than impressions
    rate = (clicked + PRIOR * average) / (np.maximum(shown, clicked) + PRIOR)
    np.testing.assert_allclose(found.click_rate, rate / average - 1, atol=1e-6)
    columns = found.columns(np.array([0, 1, 2, 3, 9]), [0])
    cosine = 1 / np.sqrt(2)  # b and c each share one of a's two users
    np.testing.assert_allclose(columns[:, 2], [0, cosine, cosine, 0, 0], rtol=1e-6)
    assert (columns[4] == 0).all(), "a product that came since"
    assert (found.columns(np.array([1]), [])[:, 2] == 0).all()


def test_later_events_change_no_count() -> None:
    before, after = (count_behaviour(table(log), IDS, before=5000) for log in (LOG[:-1], LOG))
    for name, value in vars(before).items():
        np.testing.assert_array_equal(value, getattr(after, name))
    assert (count_behaviour(table(LOG), IDS).popularity != after.popularity).any()


def test_it_is_kept_as_it_is(tmp_path) -> None:
    found = count_behaviour(table(LOG), IDS)
    found.save(tmp_path)
    for name, value in vars(Behaviour.load(tmp_path)).items():
        np.testing.assert_array_equal(value, getattr(found, name))
    with pytest.raises(ModelError):
        Behaviour.load(tmp_path / "gone")


def test_sessions_by_hand() -> None:
    first, last = search_sessions(table(LOG), IDS)  # r2 has no click
    assert (first.request_id, first.start, first.shown, first.clicked) == ("r1", 1000, {0: 0, 1: 1}, {0})
    assert (last.request_id, last.shown, last.clicked) == ("r3", {3: 2}, {3})


def test_a_past_holds_nothing_of_its_moment_or_later() -> None:
    pasts = Pasts(table(LOG), IDS)
    assert pasts.before("u", 1000) == []
    assert pasts.before("u", 1001) == [0]
    assert pasts.before("u", 5000) == [0, 1]
    assert pasts.before("u", 5001) == [0, 1, 3]
    assert pasts.before(None, 9999) == pasts.before("nobody", 9999) == []
    planted = Pasts(table([*LOG, event(10, "purchase", "c", 2000), event(11, "click", "c", 7000)]), IDS)
    for moment in (1000, 1500, 2000):
        assert planted.before("u", moment) == pasts.before("u", moment)
    assert planted.before("u", 2001) != pasts.before("u", 2001)


def test_propensities_are_those_of_the_log_although_better_products_come_first() -> None:
    random, truth = np.random.default_rng(0), np.array([1.0, 0.7, 0.5, 0.35])
    appeal, rows = np.linspace(0.1, 0.6, 20), []
    for request in range(3000):
        chosen = random.permutation(20)[:4]
        chosen = chosen[np.argsort(-(appeal[chosen] + random.normal(0, 0.2, 4)))]
        for position, product in enumerate(chosen):
            common = {"product_id": f"p{product}", "request_id": f"r{request}", "position": position, "timestamp": 0}
            rows.append({"event_id": f"i{len(rows)}", "type": "impression", **common})
            if random.random() < truth[position] * appeal[product]:
                rows.append({"event_id": f"c{len(rows)}", "type": "click", **common})
    events = table(rows)
    np.testing.assert_allclose(position_propensities(events), truth, atol=0.06)
    clicks = [np.mean([appeal[int(r["product_id"][1:])] for r in rows if r["position"] == p]) for p in (0, 3)]
    assert clicks[0] > clicks[1] + 0.1, "the plain click rate would overstate the fall"
    assert position_propensities(table([])).tolist() == [1.0]
