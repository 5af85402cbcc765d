"""Vectors that lie as those of products do, from one seed."""

import numpy as np

GROUP = 40  # kinds of products in a department
RANK = 16  # directions in which the products of a kind differ
DEPARTMENT, KIND, PRODUCT, NOISE = 1.0, 0.8, 0.5, 0.25  # standard deviations
AT_ONCE = 65_536


def mixture(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors float32 [count, width] in random order.

    One kind for 250 products, kinds around the centres of departments; kinds have sizes by a power law (rank^−.7), and
    their products differ in RANK directions of falling weight (1/√r), plus noise in all. At 1,000,000 × 128 a further
    draw's nearest row has a cosine of .90, the hundredth .72, the thousandth .56.
    """
    random = np.random.default_rng(seed)
    kinds = max(16, count // 250)
    departments = random.standard_normal((max(4, kinds // GROUP), width), np.float32) * DEPARTMENT
    centres = departments[random.integers(0, len(departments), kinds)]
    centres = centres + KIND * random.standard_normal((kinds, width), np.float32)
    sizes = np.arange(1, kinds + 1) ** -0.7
    kind = random.choice(kinds, count, p=sizes / sizes.sum())
    order = np.argsort(kind, kind="stable")
    starts = np.searchsorted(kind[order], np.arange(kinds + 1))
    weights = np.arange(1, RANK + 1, dtype=np.float32) ** -0.5
    vectors = np.empty((count, width), np.float32)
    for place in range(kinds):
        members = order[starts[place] : starts[place + 1]]
        directions = random.standard_normal((RANK, width), np.float32)
        spread = random.standard_normal((len(members), RANK), np.float32) * weights
        vectors[members] = centres[place] + PRODUCT * spread @ directions
    for start in range(0, count, AT_ONCE):
        part = vectors[start : start + AT_ONCE]
        part += NOISE * random.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
