"""What is popular by its reviews, for users nothing is known of; runs inside the retriever's replica. N products."""

import math

import numpy as np
import pyarrow as pa


def reviews(products: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Columns rating and review_count (PRODUCT), float32 [N], NaN where missing."""
    ratings = products["rating"].to_numpy().astype(np.float32)
    return ratings, products["review_count"].to_numpy(zero_copy_only=False).astype(np.float32)


def popularity(ratings: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How popular each product is, float32 [N]: its rating, drawn towards the average of all while reviews are few,
    times the logarithm of their number. NaN where missing."""
    counts = np.nan_to_num(counts)
    known = ratings[~np.isnan(ratings)]
    mean = float(known.mean()) if len(known) else 1.0
    ratings, counts = np.where(np.isnan(ratings), mean, ratings), np.maximum(counts, 0)
    drawn = (ratings * counts + mean * 10) / (counts + 10)
    return (drawn * np.log1p(counts) / math.log(10)).astype(np.float32)
