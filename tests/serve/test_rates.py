"""Token buckets against a count by hand."""

import pytest

from serve.rates import Rates


def test_buckets_against_a_count_by_hand():
    now = [0.0]
    rates = Rates(2, lambda: now[0])
    assert [rates.take("a", 4) for _ in range(3)] == [0, 0, 0.25]
    assert rates.take("b", 4) == 0
    now[0] = 0.2
    assert rates.take("a", 4) == pytest.approx(0.05)
    now[0] = 0.25
    assert [rates.take("a", 4), rates.take("a", 4)] == [0, pytest.approx(0.25)]
    now[0] = 1000
    assert [rates.take("a", 4) for _ in range(3)] == [0, 0, pytest.approx(0.25)]  # never more than the burst
    assert [rates.take("c", 0) for _ in range(100)] == [0] * 100
