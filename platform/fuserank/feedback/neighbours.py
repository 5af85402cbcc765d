"""Which products are turned to near one another: item neighbours whose weight falls with the distance between two
turns, and whose say falls with how long ago the user turned to them.

N products · P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
class Neighbours:
    """Pairs sorted by `left`. A product that came after the count has none.

    Source: Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, 2001, with each meeting counted
    1 / distance. On Beauty's validation users HR@10 .085 against .075 of plain co-occurrence (docs/EXPERIMENTS.md).
    """

    left: np.ndarray  # int64 [P]
    right: np.ndarray  # int64 [P]
    weight: np.ndarray  # float32 [P]
    products: int

    @classmethod
    def count(cls, histories: Sequence[np.ndarray], products: int) -> "Neighbours":
        """From product rows of each user's turns, oldest first."""
        rows = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h, np.int64) for h in histories)])
        owner = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
        codes, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
        for distance in range(1, WINDOW + 1):
            first, second = rows[:-distance], rows[distance:]
            met = (owner[:-distance] == owner[distance:]) & (first != second)
            if not met.any():
                break
            first, second = first[met], second[met]
            codes += [first * products + second, second * products + first]
            weights += [np.full(2 * len(first), 1 / distance)]
        pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
        together = np.bincount(place, np.concatenate(weights), len(pairs))
        left, right = pairs // max(products, 1), pairs % max(products, 1)
        turned = np.maximum(np.bincount(rows, minlength=products), 1)
        weight = together / np.sqrt(turned[left] * turned[right])
        order = np.lexsort((-weight, left))
        rank = np.arange(len(order)) - np.searchsorted(left[order], left[order])
        kept = np.sort(order[rank < KEPT])
        return cls(left[kept], right[kept], weight[kept].astype(np.float32), products)

    def save(self, folder: Path) -> None:
        """Write FILE."""
        save_file({"left": self.left, "right": self.right, "weight": self.weight}, folder / FILE)

    @classmethod
    def load(cls, folder: Path, products: int) -> "Neighbours":
        """Raises ModelError: the file is missing or damaged."""
        try:
            return cls(**load_file(folder / FILE), products=products)
        except (OSError, SafetensorError, TypeError) as error:
            raise ModelError(f"{folder / FILE} cannot be read: {error}", "Run `fuserank index` again.") from error

    def best(self, past: np.ndarray, count: int) -> np.ndarray:
        """int64 [≤ count]: the rows nearest to a past, best first."""
        score = self.scores(past, self.products)
        rows = np.flatnonzero(score)
        return rows[np.lexsort((rows, -score[rows]))][:count]

    def scores(self, past: np.ndarray, size: int) -> np.ndarray:
        """float32 [size] of one user.

        Args:
            past: product rows, oldest first; a product counts by its latest turn, the j-th latest 1 / j.
            size: rows of the catalogue now, at least `products`.
        """
        found = np.zeros(size, np.float32)
        latest = list(dict.fromkeys(reversed(np.asarray(past, np.int64).tolist())))[:LATEST]
        begin, end = np.searchsorted(self.left, latest), np.searchsorted(self.left, latest, side="right")
        for place in range(len(latest)):
            part = slice(begin[place], end[place])
            found[self.right[part]] += self.weight[part] / (place + 1)
        return found
