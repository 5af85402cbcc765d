"""A small seeded catalogue for tests of pipeline and generation: random vectors, words and attributes."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.records.schema import MODALITIES, PRODUCT

N, M, D, E = 600, len(MODALITIES), 12, 16
WORDS = ["red", "blue", "green", "wool", "shirt", "boot", "dress", "classic"]


def parts(folder: Path, count: int = N, seed: int = 0) -> dict[str, Any]:
    """Arguments of write_generation."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, size=4)) for _ in range(count)]
    products = [
        {
            "product_id": f"p{row:04d}",
            "title": texts[row],
            "brand": f"b{row % 7}",
            "price": Decimal(row) / 4,
            "category": ["Shop", f"c{row % 3}"],
            "attributes": [("shade", WORDS[row % 3])],
            "in_stock": row % 5 != 0,
        }
        for row in range(count)
    ]
    for name in ("model", "featurizer"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(f'{{"seed": {seed}}}')
    return {
        "products": pa.Table.from_pylist(products, schema=PRODUCT),
        "modality_vectors": random.normal(size=(count, M, D)).astype(np.float16),
        "mask": random.random((count, M)) < 0.8,
        "vectors": random.normal(size=(count, E)).astype(np.float32),
        "texts": texts,
        "model_folder": folder / "model",
        "featurizer_folder": folder / "featurizer",
        "modalities": MODALITIES,
    }
