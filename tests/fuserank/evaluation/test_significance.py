"""The paired test against every possible flip of signs, and Holm's correction against its definition."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import EvaluationError
from fuserank.evaluation.significance import holm, paired_test


def exact(differences: list[float]) -> float:
    """Share of all 2^Q signs whose sum is as far from 0."""
    seen = abs(sum(differences))
    sums = [
        sum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(abs(total) >= seen - 1e-9 for total in sums) / len(sums)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-0.5, -0.1, 0.0, 0.0, 0.1, 0.3, 1.0]), min_size=2, max_size=9))
def test_p_equals_all_flips(differences):
    b = np.linspace(0, 1, len(differences))
    got = paired_test(b + np.array(differences), b, flips=20_000, seed=1)
    assert got == pytest.approx(exact(differences), abs=0.015)  # four standard errors of 20,000 draws


def test_p_is_never_zero_and_one_where_nothing_differs():
    a, b = np.ones(60), np.zeros(60)
    assert paired_test(a, b, flips=999) == pytest.approx(1 / 1000)
    assert paired_test(a, a) == 1.0
    assert paired_test(a, b) == paired_test(b, a)


def test_queries_without_a_value_are_left_out():
    a, b = np.array([1.0, np.nan, 0.5, 0.2]), np.array([0.0, 0.3, np.nan, 0.1])
    assert paired_test(a, b, seed=2) == paired_test(a[[0, 3]], b[[0, 3]], seed=2)
    assert np.isnan(paired_test(a[1:3], b[1:3]))
    with pytest.raises(EvaluationError, match="same queries"):
        paired_test(a, b[:3])
    with pytest.raises(EvaluationError, match="finite"):
        paired_test(np.array([np.inf, 0.0]), np.zeros(2))


def test_flips_in_parts_are_the_same_test():
    random = np.random.default_rng(0)
    a, b = random.random(300_000), random.random(300_000)  # 26 flips at a time
    assert 0 < paired_test(a, b, flips=60) <= 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=7))
def test_holm_equals_its_definition(values):
    got = holm(values)
    for place, p in enumerate(values):
        order = sorted(range(len(values)), key=lambda i: (values[i], i))
        at = order.index(place)
        want = min(1.0, max((len(values) - rank) * values[order[rank]] for rank in range(at + 1)))
        assert got[place] == pytest.approx(want), p


def test_holm_leaves_out_what_was_not_tested():
    assert holm([0.04, float("nan"), 0.01])[::2] == [0.04, 0.02]
    assert np.isnan(holm([0.04, float("nan")])[1])
