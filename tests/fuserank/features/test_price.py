"""Log-prices and their quantile edges."""

import math
from decimal import Decimal

import numpy as np
import pytest

from fuserank.features.price import log_price, quantile_edges


def test_log_price() -> None:
    assert log_price(Decimal("20.00")) == pytest.approx(math.log(20))
    for nothing in (None, 0, -1, float("nan"), float("inf")):
        assert log_price(nothing) is None


def test_quantile_edges_fill_bins_equally() -> None:
    values = np.random.default_rng(0).normal(3, 1, 1600)
    edges = quantile_edges(values, 16)
    assert len(edges) == 15
    assert np.bincount(np.searchsorted(edges, values), minlength=16).tolist() == pytest.approx([100] * 16, abs=1)
    assert quantile_edges([], 16) == []
    assert quantile_edges([2.0] * 50, 16) == [2.0]
