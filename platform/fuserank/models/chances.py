"""How likely a shown product is clicked and bought, by a fitted click model: its forward pass in NumPy, for those who
answer requests and never import torch. Reads one click.safetensors; tests hold it against models/click.py.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from fuserank.errors import ModelError

FILE = "click.safetensors"
HEADS = ("click", "purchase")
LEAST = 1e-6  # that a probability stays below 1


class Chances:
    """B shown products with their places → [B, 2] of HEADS."""

    def __init__(self, file: Path):
        """Raises ModelError: missing or damaged."""
        try:
            with safe_open(file, "np") as read:
                self.names: tuple[str, ...] = tuple(read.metadata()["features"].split("\n"))
                keys = read.keys()  # of a file that is no dict
                self._weights = {name: read.get_tensor(name).astype(np.float64) for name in keys}
            self(self.names, np.zeros((1, len(self.names))), np.zeros(1, np.int64))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{file} cannot be read: {error}", "Run `fuserank feedback` again.") from error

    def __call__(self, names: Sequence[str], features: np.ndarray, places: np.ndarray) -> np.ndarray:
        """
        Args:
            names: of the columns of `features` [B, F], the model's among them. places: int [B], 0-based.

        Raises:
            ValueError: a feature that the model reads is missing.
        """
        w = self._weights
        read = features[:, [list(names).index(name) for name in self.names]]
        scaled = (read - w["center"]) / w["spread"]
        hidden = np.maximum(scaled @ w["network.0.weight"].T + w["network.0.bias"], 0)
        appeal = _log_sigmoid(scaled @ w["linear.weight"].T + w["linear.bias"] + hidden @ w["network.2.weight"].T)
        looked = np.concatenate([[0.0], -np.logaddexp(0, w["places"])])
        click = looked[np.minimum(places, len(looked) - 1)] + appeal[:, 0]
        told = np.minimum(np.stack([click, click + appeal[:, 1]], 1), -LEAST)
        odds = (told - np.log(-np.expm1(told))) * w["slope"] + w["offset"]
        return np.exp(_log_sigmoid(odds))


def _log_sigmoid(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -values)
