"""Affinity counted by hand, and live changes that leave it as a table made anew would have it."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from fuserank.records.schema import PRODUCT
from fuserank.retrieval.traits import PRIOR, Traits

SHOP = [
    ("Alder", ["home", "vases"], [("color", "Red"), ("size", "s")], "10"),
    ("Alder", ["home", "vases"], [("color", "red"), ("color", "Red")], "20"),
    ("Bergen", ["home", "vases"], [("color", "blue")], "30"),
    (None, None, None, None),
    ("Bergen", ["home", "rugs"], [("color", "blue "), ("code", "x1")], "40"),
]


def table(products: list[tuple]) -> pa.Table:
    rows = [
        {
            "product_id": f"p{i}",
            "brand": brand,
            "category": category,
            "attributes": attributes,
            "price": None if price is None else Decimal(price),
            "currency": None if price is None else "EUR",
        }
        for i, (brand, category, attributes, price) in enumerate(products)
    ]
    return pa.Table.from_pylist(rows, PRODUCT)


def odds(seen: int, past: int, held: int) -> float:
    share = held / len(SHOP)
    return float(np.log((seen + PRIOR * share) / ((past + PRIOR) * share)))


def test_affinity_by_hand() -> None:
    found = Traits(table(SHOP)).affinity(np.arange(5), [1, 2])
    alder, bergen, home, vases = odds(1, 2, 2), odds(1, 2, 2), odds(2, 2, 4), odds(2, 2, 3)
    red, blue = odds(1, 2, 2), odds(1, 2, 2)  # what one product has twice counts once, whatever its case
    expected = [alder + home + vases + red, alder + home + vases + red, bergen + home + vases + blue, 0]
    np.testing.assert_allclose(found[:, 0], [*expected, bergen + home + blue], rtol=1e-5)  # nothing held once counts
    low, middle = (float(np.log((n + PRIOR * share) / (5 * share))) for n, share in ((0, 1 / 4), (2, 2 / 4)))
    np.testing.assert_allclose(found[:, 1], [low, middle, middle, 0, low], rtol=1e-5)


def test_common_values_by_hand() -> None:
    traits = Traits(table(SHOP))
    held = [set(traits._of(np.array([row]))[0].tolist()) for row in range(5)]
    for row in range(5):
        shared = [len(held[row] & other) / max(len(held[row]), 1) for other in held]
        np.testing.assert_allclose(traits.common(np.arange(5), row), shared, rtol=1e-6)
    np.testing.assert_allclose(traits.common(np.array([1, 3]), 0), [1, 0])  # alike but for the price; nothing known


def test_price_tiers_are_those_of_the_category() -> None:
    cheap = [("A", ["pins"], [], str(price)) for price in range(1, 21)]
    dear = [("A", ["rugs"], [], str(1000 * price)) for price in range(1, 21)]
    found = Traits(table(cheap + dear)).affinity(np.arange(40), [2])[:, 1]
    assert (found[:7] > 0).all()
    assert (found[7:20] < 0).all()
    np.testing.assert_array_equal(found[20:], found[:20])


def test_nothing_known_is_zero() -> None:
    traits = Traits(table(SHOP))
    assert (traits.affinity(np.arange(5), []) == 0).all()
    assert traits.affinity(np.zeros(0, np.int64), [1]).shape == (0, 2)
    assert (traits.affinity(np.array([0, 1]), [3])[:, 1] == 0).all()
    assert Traits(table([])).affinity(np.zeros(0, np.int64), []).shape == (0, 2)


def test_changes_are_seen_at_once() -> None:
    traits = Traits(table(SHOP))
    before = traits.affinity(np.arange(5), [1, 2])
    traits.grow(1)
    assert (traits.affinity(np.array([5]), [1, 2]) == 0).all()
    traits.put([5, 3], table([SHOP[0], SHOP[2]]))
    found = traits.affinity(np.arange(6), [1, 2])
    np.testing.assert_array_equal(found[[0, 1, 2, 4]], before[[0, 1, 2, 4]])
    np.testing.assert_array_equal(found[[5, 3]], before[[0, 2]])
    np.testing.assert_array_equal(traits.affinity(np.arange(5), [5, 3])[0], traits.affinity(np.arange(5), [0, 2])[0])


def test_sliced_tables_are_read_where_they_begin() -> None:
    whole = table([("Z", ["z"], [("z", "z")], "1"), *SHOP]).slice(1)
    np.testing.assert_array_equal(
        Traits(whole).affinity(np.arange(5), [1, 2]), Traits(table(SHOP)).affinity(np.arange(5), [1, 2])
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_random_shop_against_plain_counting(seed: int) -> None:
    draw = np.random.default_rng(seed)
    made = [
        (
            str(draw.choice(["A", "B", "C"])),
            [str(draw.choice(["x", "y"]))],
            [("k", str(draw.integers(4))), ("n", str(draw.integers(30)))],
            str(int(draw.integers(1, 99))),
        )
        for _ in range(60)
    ]
    past = draw.choice(60, 7, replace=False).tolist()
    held = [{f"brand={b.lower()}", f"category={c[0]}", *(f"{k}={v}" for k, v in a)} for b, c, a, _ in made]
    expected = []
    for product in held:
        score = 0.0
        for value in product:
            everywhere = sum(value in other for other in held)
            if everywhere >= 2:
                share, mine = everywhere / 60, sum(value in held[row] for row in past)
                score += np.log((mine + PRIOR * share) / ((7 + PRIOR) * share))
        expected.append(score)
    np.testing.assert_allclose(Traits(table(made)).affinity(np.arange(60), past)[:, 0], expected, rtol=1e-4, atol=1e-5)
