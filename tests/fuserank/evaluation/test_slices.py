"""Slices pick the queries and products they name."""

import numpy as np
import pyarrow as pa
import pytest

from fuserank.evaluation.slices import ALL, hidden_half, query_slices, recall_without, without_words
from fuserank.records.schema import QUERY


def queries(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([{"query_id": str(i), **row} for i, row in enumerate(rows)], schema=QUERY)


def test_groups_and_kinds():
    table = queries(
        [
            {"text": "red shoe", "group": "seen"},
            {"text": "blue shoe", "group": "unseen"},
            {"image": "ab.png", "group": "seen"},
            {"text": "shoe", "image": "ab.png"},
        ]
    )
    found = {name: np.flatnonzero(chosen).tolist() for name, chosen in query_slices(table).items()}
    assert found == {
        ALL: [0, 1, 2, 3],
        "group: seen": [0, 2],
        "group: unseen": [1],
        "asked by: image": [2],
        "asked by: text": [0, 1],
        "asked by: text + image": [3],
    }


def test_a_slice_equal_to_all_is_left_out():
    assert list(query_slices(queries([{"text": "a"}, {"text": "b"}]))) == [ALL]


def test_recall_without_counts_only_products_that_lack_the_modality():
    order = np.array([[0, 1, 2, 3, -1]])
    grades = np.array([[2.0, 0.0, 1.0, 1.0, 1.0]])
    mask = np.array([[1, 1], [0, 1], [0, 1], [0, 1], [1, 1]], dtype=bool)
    found = recall_without(order, grades, mask, ("text", "image"), k=3)
    assert set(found) == {"complete", "without text"}  # no relevant product lacks its image
    assert found["complete"][0] == pytest.approx(1 / 2)
    assert found["without text"][0] == pytest.approx(1 / 2)


def test_hidden_half_is_a_share_and_follows_the_product_not_its_row():
    ids = [f"p{i:03d}" for i in range(101)]
    hidden = hidden_half(ids, 0.5, seed=4)
    assert hidden.sum() == 50
    turned = hidden_half(ids[::-1], 0.5, seed=4)[::-1]
    assert (hidden == turned).all()
    assert (hidden != hidden_half(ids, 0.5, seed=5)).any()
    assert not hidden_half(ids, 0.0, seed=4).any()


def test_hidden_words_are_hidden_in_the_attributes_too():
    mask, hidden = np.array([[True, True, True], [True, False, True]]), np.array([True, False])
    found = without_words(mask, hidden, ("text", "image", "attributes"))
    assert found.tolist() == [[False, True, False], [True, False, True]]
    assert mask.all(1).tolist() == [True, False]  # the caller's stays
    assert without_words(mask[:, :1], hidden, ("image",)).all()
