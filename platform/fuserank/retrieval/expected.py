"""What the recommender expects: its own table of a catalogue's products, kept as products change, and users' vectors.

B users · K candidates · R rows of the catalogue · E width of a fused vector · W width of the recommender.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fuserank.feedback.sequences import pad_history
from fuserank.models.recommender import Recommender
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import LiveCatalogue

Past = Mapping[str, np.ndarray]
"""rows, types, times of one user's turns, oldest first (feedback/sequences.py)."""


class Expected:
    """Scores of one catalogue. For one compute thread; every call sees the catalogue as it is."""

    def __init__(self, recommender: Recommender, catalogue: Catalogue | LiveCatalogue):
        self._recommender, self._catalogue = recommender, catalogue
        self._table = torch.zeros(0, recommender.item.out_features)
        self._put(np.arange(catalogue.size))

    def users(self, pasts: Sequence[Past]) -> np.ndarray:
        """float32 [B, W]; of a past without turns zeros."""
        self._refresh()
        arrays = pad_history([dict(past) for past in pasts], self._recommender.events)
        types, gaps, mask = (torch.from_numpy(arrays[name]) for name in ("types", "gaps", "mask"))
        with torch.inference_mode():
            return self._recommender.user_vectors(self._table[arrays["rows"]], types, gaps, mask).numpy()

    def scores(self, user: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """float32 [K], logits of these rows; None: of all R."""
        self._refresh()
        table = self._table.numpy()
        return (table if rows is None else table[rows]) @ user

    def best(self, user: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
        """int64 [≤ count]: the rows that it expects most, in no order. allowed: bool [R]."""
        rows = np.flatnonzero(allowed)
        if len(rows) <= count:
            return rows
        return rows[np.argpartition(-self.scores(user, rows), count)[:count]]

    def _refresh(self) -> None:
        rows = self._catalogue.take_moved()
        if len(rows):
            self._put(rows)

    def _put(self, rows: np.ndarray) -> None:
        more = self._catalogue.size - len(self._table)
        if more > 0:
            self._table = torch.cat([self._table, torch.zeros(more, self._table.shape[1])])
        vectors = np.array(self._catalogue.vectors[rows], np.float32)
        device = self._recommender.item.weight.device
        with torch.inference_mode():
            places = torch.from_numpy(np.asarray(rows, np.int64))
            table = self._recommender.table(torch.from_numpy(vectors).to(device), places.to(device))
            self._table[places] = table.cpu()
