"""What users' behaviour says of products: how popular they are, how often a shown one is clicked, and which are turned
to together. Counted from events before a moment; kept beside a generation's model as behaviour.safetensors.

N products · K candidates · R counted pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fuserank.errors import ModelError
from fuserank.evaluation.recommend import ItemNeighbours
from fuserank.feedback.sequences import user_sequences

FILE = "behaviour.safetensors"
PRIOR = 20.0  # impressions that a product's click rate is drawn to the average with


@dataclass(frozen=True)
class Behaviour:
    """Counts by product row. A row beyond N, a product that came since, is one that nobody has seen."""

    popularity: np.ndarray  # float32 [N]: log(1 + turns to it / the average product's)
    click_rate: np.ndarray  # float32 [N]: share of its impressions that were clicked, over the average, minus 1
    left: np.ndarray  # int64 [R], sorted: product …
    right: np.ndarray  # int64 [R]: … turned to by the same users as this one
    weight: np.ndarray  # float32 [R]: cosine

    def columns(self, rows: np.ndarray, recent: Sequence[int]) -> np.ndarray:
        """float32 [K, 3] (models.reranker.BEHAVIOUR) of candidates, for a user who has turned to `recent` rows."""
        found = np.zeros((len(rows), 3), np.float32)
        known = rows < len(self.popularity)
        found[known, 0] = self.popularity[rows[known]]
        found[known, 1] = self.click_rate[rows[known]]
        together = np.zeros(max(int(rows.max(initial=0)) + 1, len(self.popularity)), np.float32)
        for row in dict.fromkeys(recent):
            begin, end = np.searchsorted(self.left, [row, row + 1])
            together[self.right[begin:end]] += self.weight[begin:end]
        found[:, 2] = together[rows]
        return found

    def neighbours(self, recent: Sequence[int]) -> np.ndarray:
        """int64 rows that are turned to together with any of these, the strongest first."""
        together: dict[int, float] = {}
        for row in dict.fromkeys(recent):
            begin, end = np.searchsorted(self.left, [row, row + 1])
            for other, weight in zip(self.right[begin:end].tolist(), self.weight[begin:end].tolist(), strict=True):
                together[other] = together.get(other, 0.0) + weight
        return np.array(sorted(together, key=lambda row: (-together[row], row)), np.int64)

    def unseen(self, rows: np.ndarray) -> np.ndarray:
        """bool [K]: nobody has turned to it."""
        known = rows < len(self.popularity)
        return ~known | (self.popularity[np.where(known, rows, 0)] == 0)

    def take(self, rows: np.ndarray) -> "Behaviour":
        """Of a part of the catalogue, for questions of nobody in particular: without what is turned to together."""
        none = Behaviour.nothing(len(rows))
        return Behaviour(self.popularity[rows], self.click_rate[rows], none.left, none.right, none.weight)

    def save(self, folder: Path) -> None:
        """Write FILE."""
        save_file({name: np.ascontiguousarray(value) for name, value in vars(self).items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Behaviour":
        """Raises ModelError: the file is missing or damaged."""
        try:
            return cls(**load_file(folder / FILE))
        except (OSError, SafetensorError, TypeError) as error:
            raise ModelError(f"{folder / FILE} cannot be read: {error}", "Run `fuserank index` again.") from error

    @classmethod
    def nothing(cls, products: int) -> "Behaviour":
        """Of a shop without events."""
        none, pairs = np.zeros(products, np.float32), np.zeros(0, np.int64)
        return cls(none, none.copy(), pairs, pairs.copy(), np.zeros(0, np.float32))


def count_behaviour(events: pa.Table, product_ids: list[str], before: int | None = None) -> Behaviour:
    """Behaviour of EVENT rows earlier than `before` (ms; None: all)."""
    if before is not None:
        events = events.filter(pc.call_function("less", [events["timestamp"].cast(pa.int64()), pa.scalar(before)]))
    size = len(product_ids)
    counted = count_turns([found["rows"].tolist() for found in user_sequences(events, product_ids).values()], size)
    row_of = {product: row for row, product in enumerate(product_ids)}
    shown, clicked = np.zeros(size), np.zeros(size)
    for kind, product in zip(events["type"].to_pylist(), events["product_id"].to_pylist(), strict=True):
        if product in row_of and kind in ("impression", "click"):
            (shown if kind == "impression" else clicked)[row_of[product]] += 1
    average = min(clicked.sum() / max(shown.sum(), 1), 1.0) or 1.0
    rate = (clicked + PRIOR * average) / (np.maximum(shown, clicked) + PRIOR)
    return replace(counted, click_rate=(rate / average - 1).astype(np.float32) * (clicked.sum() > 0))


def count_turns(histories: Sequence[Sequence[int]], products: int) -> Behaviour:
    """Behaviour of histories of product rows; they tell nothing of clicks."""
    rows = np.concatenate([np.zeros(0, np.int64), *(np.asarray(history, np.int64) for history in histories)])
    turned, neighbours = np.bincount(rows, minlength=products), ItemNeighbours(histories, products)
    return Behaviour(
        np.log1p(turned / max(turned.mean(), 1e-9)).astype(np.float32),
        np.zeros(products, np.float32),
        neighbours.left,
        neighbours.right,
        neighbours.weight.astype(np.float32),
    )
