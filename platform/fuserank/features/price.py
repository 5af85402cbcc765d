"""An amount → natural log of the price, and the quantiles that the price encoder embeds. Reads and writes nothing."""

import math
from collections.abc import Iterable
from decimal import Decimal

import numpy as np


def log_price(amount: float | Decimal | None) -> float | None:
    """Natural logarithm of a price; None where there is no price or it is not above 0."""
    if amount is None:
        return None
    value = float(amount)
    return math.log(value) if math.isfinite(value) and value > 0 else None


def quantile_edges(log_prices: Iterable[float], quantiles: int) -> list[float]:
    """The inner edges that cut log-prices into `quantiles` equally filled bins, ascending, without repeats."""
    values = np.fromiter(log_prices, dtype=np.float64)
    if len(values) == 0:
        return []
    return [float(edge) for edge in np.unique(np.quantile(values, np.arange(1, quantiles) / quantiles))]
