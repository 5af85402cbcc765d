"""A shop's rules on candidates: each does what it says and no more, against plain computations."""

import logging

import numpy as np
import pytest

from fuserank.config import Boost, Pin, Rules
from fuserank.retrieval.pipeline import Retriever
from fuserank.retrieval.rules import Ruled
from tests.fuserank.retrieval.generations import N

Offer = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def retriever(generation) -> Retriever:
    return Retriever(generation.catalogue)


def offered(count: int = 60, seed: int = 0) -> Offer:
    random = np.random.default_rng(seed)
    rows = random.permutation(N)[:count]
    return rows, np.sort(random.normal(size=count).astype(np.float32))[::-1].copy()


def ruled(retriever: Retriever, offer: Offer, wanted: int = 10, **rules) -> Offer:
    return Ruled(Rules(**rules), retriever).apply(*offer, wanted, None, [])


def brands(retriever: Retriever, rows: np.ndarray) -> list[str | None]:
    return retriever.catalogue.products["brand"].take(rows).to_pylist()


def test_no_rule_changes_nothing(retriever):
    nothing = Ruled(Rules(), retriever)
    rows, score = offered()
    assert not nothing
    assert nothing.depth(7) == 7
    found = nothing.apply(rows, score, 10, None, [])
    np.testing.assert_array_equal(found[0], rows[:10])
    np.testing.assert_array_equal(found[1], score[:10])


def test_a_boost_adds_spreads_and_a_bury_takes_them(retriever):
    rows, score = offered()
    brand = next(one for one in brands(retriever, rows[30:]) if one)
    has = np.array([one == brand for one in brands(retriever, rows)])
    for by in (1.5, -1.5):
        found, worth = ruled(retriever, (rows, score), 60, boost=[Boost(filter={"brand": brand}, by=by)])
        expected = score + by * score.std() * has
        order = np.lexsort((rows, -expected))
        np.testing.assert_array_equal(found, rows[order])
        np.testing.assert_allclose(worth, expected[order], rtol=1e-5)


def test_caps_keep_the_best_of_each_brand(retriever):
    rows, score = offered()
    found, _ = ruled(retriever, (rows, score), 60, caps={"brand": 2})
    expected, count = [], {}
    for row, brand in zip(rows.tolist(), brands(retriever, rows), strict=True):
        count[brand] = count.get(brand, 0) + 1
        if brand is None or count[brand] <= 2:
            expected.append(row)
    assert found.tolist() == expected
    assert len(expected) < 60


def test_variety_is_maximal_marginal_relevance(retriever):
    rows, score = offered(30)
    found, _ = ruled(retriever, (rows, score), 12, diversity=0.6)
    vectors = np.asarray(retriever.catalogue.vectors[rows], np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike, worth = vectors @ vectors.T, (score - score.mean()) / score.std()
    chosen: list[int] = [0]
    while len(chosen) < 12:
        values = {i: 0.4 * worth[i] - 0.6 * max(alike[i, j] for j in chosen) / alike.std() for i in range(30)}
        chosen.append(max((i for i in values if i not in chosen), key=values.__getitem__))
    assert found.tolist() == rows[chosen].tolist()
    plain = rows[:12]
    where = {row: place for place, row in enumerate(rows.tolist())}

    def likeness(shown: np.ndarray) -> float:
        """Of each product to the most alike above it."""
        places = [where[row] for row in shown]
        return float(np.mean([max(alike[one, other] for other in places[:n]) for n, one in enumerate(places) if n]))

    assert likeness(found) < likeness(plain)


def test_pins_stand_where_they_are_put_unless_they_may_not_be_shown(retriever):
    rows, score = offered()
    ids = retriever.catalogue.ids
    outside = next(row for row in range(N) if row not in rows)
    pins = [Pin(product_id=ids[outside], place=3), Pin(product_id=ids[rows[8]], place=1)]
    found, worth = ruled(retriever, (rows, score), 10, pins=pins)
    assert found[0] == rows[8]
    assert found[2] == outside
    assert len(found) == len(worth) == len(set(found.tolist())) == 10
    assert [row for row in found.tolist() if row not in (rows[8], outside)] == [
        row for row in rows.tolist() if row != rows[8]
    ][:8]
    rule = Ruled(Rules(pins=[*pins, Pin(product_id="gone")]), retriever)
    allowed = np.ones(N, bool)
    allowed[outside] = False
    without, _ = rule.apply(rows, score, 10, allowed, [int(rows[8])])
    assert outside not in without
    assert without[0] == rows[0]  # the candidate itself was left out by whoever found it: here it was not


def test_nothing_found_and_pins_alone(retriever):
    empty = np.zeros(0, np.int64), np.zeros(0, np.float32)
    product = retriever.catalogue.ids[4]
    found, worth = ruled(retriever, empty, 5, pins=[Pin(product_id=product, place=4)], diversity=0.5, caps={"brand": 1})
    assert found.tolist() == [4]
    assert worth.tolist() == [0.0]


def test_a_rule_that_cannot_hold_is_logged_and_left_out(retriever, caplog):
    rules = Rules(boost=[Boost(filter={"colour": "red"}), Boost(filter={"in_stock": True})], caps={"attributes.no": 2})
    with caplog.at_level(logging.ERROR, "fuserank.retrieval"):
        kept = Ruled(rules, retriever)
    assert kept
    assert [record.getMessage()[:29] for record in caplog.records] == [
        "serve.rules.boost[0] is left ",
        "serve.rules.caps.attributes.n",
    ]
