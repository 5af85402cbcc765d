"""Training and validation data of a finished `preprocess`, as rows of its tables."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fuserank.features.table import FeatureTable
from fuserank.feedback.sequences import training_histories
from fuserank.records.schema import MODALITIES
from fuserank.training.data import Inputs, RankingData, judgments_of
from fuserank.training.validate import Validation


@dataclass
class Splits:
    """Training and validation data over the same tables."""

    train: RankingData
    validation: Validation
    columns: list[int]


def open_splits(
    preprocess: Path,
    modalities: tuple[str, ...],
    events: int,
    products: Inputs | None = None,
    queries: Inputs | None = None,
    labels: float = 1.0,
) -> Splits:
    """The splits of a finished `preprocess`.

    Args:
        modalities: the model's. events: history length for the recommender, 0 for none.
        products, queries: cached inputs in place of the features (the same rows).
        labels: share of the training products (where the split is by product, else of the training queries) to keep.
    """
    products = products if products is not None else FeatureTable.open(preprocess / "features")
    queries = queries if queries is not None else FeatureTable.open(preprocess / "query_features.parquet")
    product_split = _column(preprocess / "products.parquet", "split", len(products.ids))
    query_split = _column(preprocess / "queries.parquet", "split", len(queries.ids))
    judgments = judgments_of(pq.read_table(preprocess / "judgments.parquet"), queries.ids, products.ids)
    columns = [MODALITIES.index(m) for m in modalities]
    everything = np.arange(len(products.ids))

    by_product = any(value is not None for value in product_split)

    def rows(split: str) -> np.ndarray:  # where the split is by query, every product is in the catalogue of each split
        return np.flatnonzero(product_split == split) if by_product else everything

    file = preprocess / "events.parquet"
    histories = training_histories(pq.read_table(file), products.ids, events) if events and file.is_file() else None
    asked = {name: np.flatnonzero(query_split == name) for name in ("training", "validation")}
    shown, learnt = rows("training"), asked["training"]
    if by_product:
        shown = _share(shown, products.ids, labels)
    else:
        learnt = _share(learnt, queries.ids, labels)
    train = RankingData(products, queries, judgments, shown, learnt, modalities, columns, histories)
    validation = Validation(products, queries, judgments, rows("validation"), asked["validation"], columns)
    return Splits(train, validation, columns)


def _share(rows: np.ndarray, ids: list[str], share: float) -> np.ndarray:
    """The rows whose id's hash falls into the share: a larger share holds all of a smaller one."""
    if share >= 1:
        return rows
    kept = [int(hashlib.sha1(f"labels {ids[row]}".encode()).hexdigest(), 16) % 10_000 < share * 10_000 for row in rows]
    return rows[np.array(kept, bool)]


def _column(file: Path, name: str, count: int) -> np.ndarray:
    if not file.is_file():
        return np.full(count, None, object)
    return np.array(pq.read_table(file, columns=[name])[name].to_pylist(), object)
