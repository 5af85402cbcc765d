"""Comparisons of systems on planted rankings."""

import numpy as np
import pytest

from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import best_of, compare, late_order, measure, modality_orders


def planted(seed: int = 0, queries: int = 60, products: int = 50):
    random = np.random.default_rng(seed)
    grades = random.choice([0, 0, 0, 1, 2], size=(queries, products)).astype(np.float32)
    good = np.argsort(-(grades + 0.3 * random.normal(size=grades.shape)), axis=1)
    poor = np.argsort(-(grades + 3.0 * random.normal(size=grades.shape)), axis=1)
    return grades, {"served": good, "bm25": poor}


def test_the_better_system_wins_with_an_interval_and_slices_use_their_queries():
    grades, orders = planted()
    values = measure(orders, grades, recall_k=20)
    half = np.arange(60) < 30
    found = compare(values, {ALL: np.ones(60, bool), "first": half}, [("served", "bm25")], 500, 1)
    difference = found[ALL]["differences"][0]["ndcg@10"]
    assert difference["excludes_zero"]
    assert difference["low"] > 0
    assert difference["p"] == pytest.approx(1 / 2001, abs=1e-6)  # no flip is as far from 0
    assert difference["p"] < difference["p_holm"] <= 5 * difference["p"] + 1e-5
    mean = np.nanmean(values["served"]["ndcg@10"][half])
    assert found["first"]["systems"]["served"]["ndcg@10"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert found["first"]["systems"]["served"]["ndcg@10"]["n"] == 30


def test_a_system_against_itself_has_no_difference():
    grades, orders = planted()
    values = measure({"a": orders["bm25"], "b": orders["bm25"].copy()}, grades)
    row = compare(values, {ALL: np.ones(60, bool)}, [("a", "b")])[ALL]["differences"][0]
    nothing = {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 60, "excludes_zero": False, "p": 1.0, "p_holm": 1.0}
    assert row["mrr"] == nothing


def test_modality_orders_leave_products_without_it_unranked():
    heads = np.array([[[1.0, 0.0], [0.0, 1.0]]], dtype=np.float32)  # [Q=1, M=2, D=2]
    vectors = np.array([[[0.1, 0], [0, 9]], [[0.5, 0], [0, 9]], [[0.9, 0], [0, 0.2]]], dtype=np.float16)
    mask = np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)
    found = modality_orders(heads, vectors, mask, ("text", "image"))
    assert found["text"].tolist() == [[1, 0, -1]]
    assert found["image"].tolist() == [[1, 2, -1]]


def test_late_concatenation_is_the_sum_of_what_is_there():
    heads = np.array([[[1.0, 0.0], [0.0, 1.0]]], dtype=np.float32)
    vectors = np.array([[[0.5, 0], [0, 0.3]], [[0.7, 0], [0, 9]], [[0.9, 0], [0, -0.3]], [[9, 0], [0, 9]]], np.float16)
    mask = np.array([[1, 1], [1, 0], [1, 1], [0, 0]], dtype=bool)
    assert late_order(heads, vectors, mask).tolist() == [[0, 1, 2, 3]]  # scores 0.8, 0.7, 0.6, 0


def test_best_of_takes_the_highest_mean_and_ignores_absent_ones():
    values = {"text": {"m": np.array([0.2, np.nan])}, "image": {"m": np.array([0.5, 0.1])}}
    assert best_of(values, ("text", "image", "audio"), "m") == "image"
    assert best_of({"text": {"m": np.array([np.nan])}}, ("text",), "m") is None
