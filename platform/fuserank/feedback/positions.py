"""How likely each place of an answer is looked at, from the log itself: the position-based click model.

P(click) = propensity(position) · appeal(product), fitted by alternating ratios, so that a place is not taken for a good
one because good products are put there (Chuklin et al. 2015, Click Models for Web Search, 3.3; product appeal instead
of query and document, because few pairs repeat).
"""

import numpy as np
import pyarrow as pa

ROUNDS = 10
PRIOR = 5.0  # impressions that a product's appeal is drawn to the average with


def position_propensities(events: pa.Table) -> np.ndarray:
    """EVENT rows → float32 [P], the first place's is 1, later ones' never rise; [1.0] where nothing tells.

    A click without its impression counts as shown.
    """
    shown: dict[tuple, int] = {}
    names = ("type", "request_id", "product_id", "position")
    for kind, request, product, position in zip(*(events[name].to_pylist() for name in names), strict=True):
        if kind in ("impression", "click") and position is not None and request is not None:
            key = (request, product, position)
            shown[key] = max(shown.get(key, 0), int(kind == "click"))
    if not shown or not any(shown.values()):
        return np.ones(1, np.float32)
    keys, clicked = list(shown), np.array(list(shown.values()), float)
    place = np.array([key[2] for key in keys])
    _, product = np.unique(np.array([key[1] for key in keys]), return_inverse=True)
    average = clicked.mean()
    chance, clicks = np.ones(place.max() + 1), np.bincount(product, clicked)
    for _ in range(ROUNDS):
        appeal = (clicks + PRIOR * average) / (np.bincount(product, chance[place]) + PRIOR)
        expected = np.bincount(place, appeal[product], len(chance))
        seen = np.bincount(place, clicked, len(chance)) + 1.0  # one click more and as many expected: rare places
        chance = seen / (expected + 1.0)
        chance = np.minimum.accumulate(chance / chance[0])
    return chance.astype(np.float32)
