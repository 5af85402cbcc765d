"""Which products are turned to near one another: item neighbours whose weight falls with the distance between two
turns, and whose say falls with how long ago the user turned to them.

N products · P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fuserank.errors import ModelError

FILE = "neighbours.safetensors"
WINDOW = 20  # turns apart at most
LATEST = 50  # turns of a past that count
KEPT = 200  # neighbours of a product, the nearest


@dataclass(frozen=True)
class Shape:
    """How meetings are counted. The defaults are what three logs' validation users agreed on (docs/EXPERIMENTS.md)."""

    back: float = 0.3  # what a meeting counts from the later product to the earlier; the other way it counts 1
    decay: float = 0.5  # it is counted 1 / distance ** decay
    left: float = 0.3  # and over turns ** left of the product that was turned to,
    right: float = 0.1  # and turns ** right of the one that is recommended: 0 leaves what is popular popular
    recency: float = 1.0  # a past's j-th latest product counts 1 / j ** recency


GRID: dict[str, tuple[float, ...]] = {
    "decay": (0.25, 0.5, 1.0),
    "right": (0.0, 0.1, 0.3, 0.5),
    "back": (0.15, 0.3, 0.6, 1.0),
    "recency": (0.5, 0.75, 1.0, 1.5),
}
"""What `fitted` tries, one after the other."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs sorted by `left`. A product that came after the count has none.

    Source: Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, 2001, with each meeting counted
    by its direction and distance.
    """

    left: np.ndarray  # int64 [P]
    right: np.ndarray  # int64 [P]
    weight: np.ndarray  # float32 [P]
    products: int
    recency: float = 1.0  # Shape's

    @classmethod
    def count(cls, histories: Sequence[np.ndarray], products: int, shape: Shape = Shape()) -> "Neighbours":
        """From product rows of each user's turns, oldest first."""
        rows = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h, np.int64) for h in histories)])
        owner = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
        codes, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
        for distance in range(1, WINDOW + 1):
            first, second = rows[:-distance], rows[distance:]
            met = (owner[:-distance] == owner[distance:]) & (first != second)
            if not met.any():
                break
            first, second, worth = first[met], second[met], distance**-shape.decay
            codes += [first * products + second, second * products + first]
            weights += [np.full(len(first), worth), np.full(len(first), worth * shape.back)]
        pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
        together = np.bincount(place, np.concatenate(weights), len(pairs))
        left, right = pairs // max(products, 1), pairs % max(products, 1)
        turned = np.maximum(np.bincount(rows, minlength=products), 1)
        weight = together / (turned[left] ** shape.left * turned[right] ** shape.right)
        order = np.lexsort((-weight, left))
        rank = np.arange(len(order)) - np.searchsorted(left[order], left[order])
        kept = np.sort(order[rank < KEPT])
        return cls(left[kept], right[kept], weight[kept].astype(np.float32), products, shape.recency)

    def save(self, folder: Path) -> None:
        """Write FILE."""
        arrays = {"left": self.left, "right": self.right, "weight": self.weight}
        save_file({**arrays, "recency": np.array(self.recency)}, folder / FILE)

    @classmethod
    def load(cls, folder: Path, products: int) -> "Neighbours":
        """Raises ModelError: the file is missing or damaged."""
        try:
            found = load_file(folder / FILE)
            return cls(**{**found, "recency": float(found["recency"])}, products=products)
        except (OSError, SafetensorError, TypeError, KeyError) as error:
            raise ModelError(f"{folder / FILE} cannot be read: {error}", "Run `fuserank index` again.") from error

    def best(self, past: np.ndarray, count: int) -> np.ndarray:
        """int64 [≤ count]: the rows nearest to a past, best first."""
        score = self.scores(past, self.products)
        rows = np.flatnonzero(score)
        return rows[np.lexsort((rows, -score[rows]))][:count]

    def scores(self, past: np.ndarray, size: int) -> np.ndarray:
        """float32 [size] of one user.

        Args:
            past: product rows, oldest first; a product counts by its latest turn, the j-th latest 1 / j ** recency.
            size: rows of the catalogue now, at least `products`.
        """
        found = np.zeros(size, np.float32)
        latest = list(dict.fromkeys(reversed(np.asarray(past, np.int64).tolist())))[:LATEST]
        begin, end = np.searchsorted(self.left, latest), np.searchsorted(self.left, latest, side="right")
        for place in range(len(latest)):
            part = slice(begin[place], end[place])
            found[self.right[part]] += self.weight[part] / (place + 1) ** self.recency
        return found


def fitted(shape: Shape, judge: Callable[[Shape], float]) -> Shape:
    """The best shape that `judge` finds over GRID, from `shape` on, one number after the other; of equal ones the one
    it came from."""
    best, score = shape, judge(shape)
    for name, values in GRID.items():
        for value in values:
            other = replace(best, **{name: value})
            if other != best and (found := judge(other)) > score:
                best, score = other, found
    return best
