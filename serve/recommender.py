"""Users' recent events → one vector each, by the model's recommender; runs inside the retriever's replica.

Legend: U users, T events, E width of the fused product vectors, N products.
"""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from fuserank.feedback.history import Turn, turns
from fuserank.feedback.sequences import pad_history
from fuserank.models.recommender import Recommender
from fuserank.records.schema import EVENT_TYPES
from fuserank.retrieval.delta_vectors import RowReader

Past = Sequence[Turn]
"""Row, event type and time in seconds of each event, oldest first."""


def user_vectors(recommender: Recommender, vectors: np.ndarray | RowReader, pasts: Sequence[Past]) -> np.ndarray:
    """One vector a user, float32 [U, E]; its dot product with a product's fused vector is the score.

    Args:
        vectors: float32 [N, E], fused product vectors.
        pasts: U histories; the latest turns (feedback/history.py) that the recommender looks back to count. A history
            without any gives zeros.
    """
    padded = pad_history([_sequence(turns(past)) for past in pasts], recommender.events)
    items = torch.from_numpy(np.ascontiguousarray(vectors[padded["rows"]], np.float32))
    types, gaps, mask = (torch.from_numpy(padded[name]) for name in ("types", "gaps", "mask"))
    with torch.inference_mode():
        out = recommender.user_vectors(items, types, gaps, mask)
    return out.numpy()


def _sequence(past: Past) -> dict[str, np.ndarray]:
    rows, types, times = zip(*past, strict=True) if past else ((), (), ())
    return {
        "rows": np.array(rows, np.int64),
        "types": np.array([EVENT_TYPES.index(kind) for kind in types], np.int64),
        "times": np.array(times, np.float64),
    }


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
