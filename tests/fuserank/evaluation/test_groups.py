"""Groups of products are those they name, and recall within one counts its products only."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from fuserank.evaluation.groups import category_shares, product_groups, recall_of
from fuserank.records.schema import PRODUCT


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([{"product_id": str(i), **row} for i, row in enumerate(rows)], schema=PRODUCT)


def members(groups: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: np.flatnonzero(chosen).tolist() for name, chosen in groups.items()}


def test_every_kind_of_group():
    euros = [10, 20, 30, 40, 50, None, 60, 70]
    rows = [
        {
            "price": None if price is None else Decimal(price),
            "currency": "USD" if i == 7 else "EUR",
            "category": ["shop", "shoes" if i < 5 else "hats"] if i != 6 else None,
        }
        for i, price in enumerate(euros)
    ]
    mask = np.array([[1, 1], [1, 1], [1, 1], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], dtype=bool)
    counts = np.array([0, 0, 9, 6, 3, 1, 1, 0])
    known = np.array([1, 0, 1, 1, 1, 1, 1, 0], dtype=bool)
    found = {
        what: members(of) for what, of in product_groups(table(rows), mask, ("text", "image"), counts, known).items()
    }
    assert found["popularity"] == {"head": [2, 3], "tail": [4, 5, 6], "no events": [0, 1, 7]}  # 9 + 6 of 20
    assert found["training"] == {"seen in training": [0, 2, 3, 4, 5, 6], "cold": [1, 7]}
    assert found["modalities"] == {"text + image": [0, 1, 2], "image": [5, 6], "text": [3, 4], "nothing": [7]}
    assert list(found["category"]) == ["shop", "none"]
    assert found["category"]["none"] == [6]
    bands = list(found["price"].items())  # of 10 … 60: quarters at 22.5, 35, 47.5
    assert [rows_ for _, rows_ in bands] == [[0, 1], [2], [3], [4, 6], [5, 7]]
    assert bands[0][0] == "10.00 – 22.50 EUR"
    assert bands[-1][0] == "no price"


def test_the_first_level_that_differs_and_the_largest_by_name():
    paths = [["shop", f"kind {min(i, 9)}"] for i in range(30)] + [["shop", "kind 1"]]
    found = product_groups(table([{"category": path} for path in paths]), np.ones((31, 1), bool), ("text",), None, None)
    assert list(found) == ["category"]  # all have text, none has a price
    sizes = {name: int(chosen.sum()) for name, chosen in found["category"].items()}
    assert sizes.pop("other") == 2
    assert list(sizes.items())[:2] == [("kind 9", 21), ("kind 1", 2)]
    assert len(sizes) == 8


def test_category_shares():
    shares = category_shares(table([{"category": ["b"]}, {"category": ["a", "x"]}, {}]))
    assert shares.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    assert category_shares(table([{}, {}])).shape == (2, 0)


def test_one_price_for_all_and_an_empty_catalogue():
    same = table([{"price": Decimal(5), "currency": "EUR"}, {"price": Decimal(5), "currency": "EUR"}, {}])
    assert members(product_groups(same, np.ones((3, 1), bool), ("text",), None, None)["price"]) == {
        "5.00 EUR": [0, 1],
        "no price": [2],
    }
    assert product_groups(table([]), np.ones((0, 1), bool), ("text",), np.zeros(0), None) == {}


def test_recall_of_a_group_counts_its_products_only():
    order = np.array([[0, 1, 2, 3, -1], [4, -1, -1, -1, -1]])
    grades = np.array([[2.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 2.0]])
    groups = {
        "a": np.array([1, 1, 1, 0, 0], bool),
        "b": np.array([0, 0, 0, 1, 1], bool),
        "c": np.array([0, 1, 0, 0, 0], bool),
    }
    found = recall_of(order, grades, groups, k=2)
    assert set(found) == {"a", "b"}  # nothing of c is relevant
    assert found["a"][0] == pytest.approx(1 / 2)
    assert np.isnan(found["a"][1])
    assert found["b"].tolist() == [0.0, 1.0]
