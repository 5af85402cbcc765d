"""How much a user likes products, learnt from all that they were shown: what they turned to, and what they passed over.

Bayesian linear regression (Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, §2.1) of turns on the
products' fused vectors, for one user at a time and at the moment of asking. What few products differ in (a pattern)
would be lost beside what all differ in (their kind), so directions are evened out first by the fourth root of their
variance in the catalogue.

N products · T shown · K candidates · E width of a fused vector.
"""

import numpy as np

from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import LiveCatalogue

SAMPLE = 20_000  # products that the directions are taken from
LEAST = 1e-3  # a direction's variance counts as no less than this share of the largest
NOISE = 0.15  # variance of a turn around its chance
CHANCE = 0.1  # of a turn, of a user of whom nothing is known
SHOWN = 400  # products shown to a user that are learnt from, the latest


class Liking:
    """Of one catalogue; products that come later are told by the same directions."""

    @classmethod
    def of(cls, catalogue: Catalogue | LiveCatalogue) -> "Liking":
        """By SAMPLE of its products at most."""
        step = max(1, -(-catalogue.size // SAMPLE))
        return cls(catalogue.vectors[np.arange(0, catalogue.size, step)])

    def __init__(self, vectors: np.ndarray):
        """vectors: [N, E]."""
        sample = np.asarray(vectors, np.float32)
        width = sample.shape[1]
        self._mean, self._turn = np.zeros(width, np.float32), np.eye(width, dtype=np.float32)
        if len(sample) < 2:
            return
        self._mean = sample.mean(0)
        variance, directions = np.linalg.eigh(np.cov(sample.T))
        if variance.max() > 0:
            even = np.maximum(variance / variance.max(), LEAST) ** -0.25
            self._turn = (directions * even).astype(np.float32)

    def scores(self, vectors: np.ndarray, shown: np.ndarray, looked: np.ndarray, turned: np.ndarray) -> np.ndarray:
        """float32 [K]: chance of a turn where it is looked at, beyond CHANCE; 0 of a user who was shown nothing.

        Args:
            vectors: [K, E] of the candidates; shown: [T, E], oldest first; looked: [T] chance that its place was
                looked at; turned: bool [T].
        """
        if not len(shown):
            return np.zeros(len(vectors), np.float32)
        looks = np.asarray(looked[-SHOWN:], np.float32)
        seen = self.seen(shown[-SHOWN:]) * looks[:, None]
        beyond = seen.T @ (np.asarray(turned[-SHOWN:], np.float32) - CHANCE * looks)
        weights = np.linalg.solve(seen.T @ seen + NOISE * np.eye(seen.shape[1], dtype=np.float32), beyond)
        return self.seen(vectors) @ weights

    def seen(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [., E + 1]: unit vectors in evened directions, and a constant."""
        even = (np.asarray(vectors, np.float32) - self._mean) @ self._turn
        length = np.maximum(np.linalg.norm(even, axis=1, keepdims=True), 1e-9)
        return np.concatenate([even / length, np.ones((len(even), 1), np.float32)], 1)
