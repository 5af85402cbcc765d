"""What a user may want next: the recommender, item neighbours, popularity and likeness of content, each a score over
the whole catalogue, added up by learnt weights. Shared by evaluation and serving.

B users · R rows of the catalogue · N ≤ R products that training knew · E width of a fused vector.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fuserank.errors import ModelError
from fuserank.feedback.neighbours import Neighbours
from fuserank.feedback.sequences import pad_history
from fuserank.models.recommender import Recommender

FILE = "recommend.safetensors"
RECENT = 10  # turns whose mean a product is likened to, the j-th latest 1 / j
LEAST = 1e-4  # share of all neighbourhood that a product without any is taken to have

Past = Mapping[str, np.ndarray]
"""rows, types, times: one user's turns, oldest first (feedback/sequences.py)."""


class Rows(Protocol):
    """float32 [R, E] by rows: an array, or the vectors of a live catalogue."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Blend:
    """score = recommender's log-probability + Σ weight · other part."""

    neighbours: float = 0.5  # · log(share of the user's neighbourhood + LEAST)
    popularity: float = 0.0  # · log(1 + turns to it)
    likeness: float = 0.0  # · cosine to the mean of the latest turns


@dataclass(frozen=True)
class Parts:
    """Scores of each part, float32 [B, R]."""

    recommender: np.ndarray
    neighbours: np.ndarray
    popularity: np.ndarray  # [R], alike for all
    likeness: np.ndarray

    def blended(self, blend: Blend) -> np.ndarray:
        """float32 [B, R]."""
        found = self.recommender + blend.neighbours * self.neighbours
        found += blend.popularity * self.popularity
        return found + blend.likeness * self.likeness


class Recommendations:
    """Scores a catalogue for users by their pasts. For one compute thread."""

    def __init__(
        self, recommender: Recommender, neighbours: Neighbours, turned: np.ndarray, blend: Blend, vectors: np.ndarray
    ):
        """
        Args:
            turned: int64 [N], turns to each product in training.
            vectors: float32 [R, E], fused vectors of the catalogue; `put` changes rows.
        """
        self.recommender, self.blend = recommender, blend
        self._neighbours = neighbours
        self._turned = np.log1p(turned).astype(np.float32)
        self._unit = np.zeros((0, vectors.shape[1]), np.float32)
        self._table = torch.zeros(0, recommender.item.out_features)
        self.put(np.arange(len(vectors)), vectors)

    def put(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Fused vectors [n, E] of rows that changed or are new; rows in between are nothing until they come."""
        if not len(rows):
            return
        more = int(rows.max()) + 1 - len(self._unit)
        if more > 0:
            self._unit = np.concatenate([self._unit, np.zeros((more, self._unit.shape[1]), np.float32)])
            self._table = torch.cat([self._table, torch.zeros(more, self._table.shape[1])])
        vectors = np.array(vectors, np.float32)
        self._unit[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
        with torch.inference_mode():
            places = torch.from_numpy(np.asarray(rows, np.int64))
            self._table[places] = self.recommender.table(torch.from_numpy(vectors), places)

    def parts(self, pasts: Sequence[Past]) -> Parts:
        """Of users with at least one turn each."""
        arrays = pad_history([dict(past) for past in pasts], self.recommender.events)
        types, gaps, mask = (torch.from_numpy(arrays[name]) for name in ("types", "gaps", "mask"))
        with torch.inference_mode():
            items = self._table[torch.from_numpy(arrays["rows"])]
            users = self.recommender.user_vectors(items, types, gaps, mask)
            told = torch.log_softmax(users @ self._table.T, dim=1).numpy()
        size = len(self._unit)
        near = np.stack([self._neighbours.scores(past["rows"], size) for past in pasts])
        near = np.log(near / near.sum(axis=1, keepdims=True).clip(1e-9) + LEAST)
        popular = np.full(size, self._turned.mean() if len(self._turned) else 0.0, np.float32)
        popular[: len(self._turned)] = self._turned  # what came since is taken to be like the average
        return Parts(told, near, popular, np.stack([self._wanted(past["rows"]) for past in pasts]) @ self._unit.T)

    def scores(self, pasts: Sequence[Past]) -> np.ndarray:
        """float32 [B, R]."""
        return self.parts(pasts).blended(self.blend)

    def _wanted(self, rows: np.ndarray) -> np.ndarray:
        """[E]: the direction of the latest turns."""
        latest = np.asarray(rows)[::-1][:RECENT]
        mean = (self._unit[latest] / np.arange(1, len(latest) + 1)[:, None]).sum(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-9)


def save(folder: Path, neighbours: Neighbours, turned: np.ndarray, blend: Blend) -> None:
    """Write FILE, what a generation keeps beside its model."""
    arrays = {name: getattr(neighbours, name) for name in ("left", "right", "weight")}
    weights = np.array(dataclasses.astuple(blend), np.float32)
    save_file({**arrays, "turned": np.ascontiguousarray(turned, np.int64), "blend": weights}, folder / FILE)


def load(folder: Path, recommender: Recommender, vectors: np.ndarray) -> Recommendations:
    """Of a generation. Raises ModelError: FILE is missing or damaged."""
    try:
        found = load_file(folder / FILE)
        turned = found["turned"]
        neighbours = Neighbours(found["left"], found["right"], found["weight"], len(turned))
        blend = Blend(*(float(weight) for weight in found["blend"]))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / FILE} cannot be read: {error}", "Run `fuserank index` again.") from error
    return Recommendations(recommender, neighbours, turned, blend, vectors)
