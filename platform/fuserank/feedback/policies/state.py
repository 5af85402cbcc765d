"""What a linear policy has learnt: sums over what was shown and what it earned, exact and the same in any order.

Floating-point addition depends on its order, so two replicas that see the same events in different orders would drift
apart. Here features and rewards are rounded to a grid and their products summed as whole numbers: any order and any
grouping of the same events gives the same bits. Saved as JSON, never pickled.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuserank.artifacts import write_json
from fuserank.errors import PolicyError

FORMAT = 1
GRID = 2.0**-12
"""Features and rewards are rounded to multiples of this."""
FEATURE_LIMIT = 16.0  # |feature|: a product of two is below 2^32 grid units, so that 2^31 slots fit in an int64
REWARD_LIMIT = 256.0
CHUNK = 1 << 16  # rows summed at once in float64, where sums of whole numbers below 2^53 are exact


@dataclass(frozen=True)
class Posterior:
    """Ridge regression of rewards on features: N(mean, noise² · (whiten.T @ whiten))."""

    mean: np.ndarray  # [F]
    whiten: np.ndarray  # [F, F]: inverse of the lower Cholesky factor of ridge·I + Σ x xᵀ

    def widths(self, features: np.ndarray) -> np.ndarray:
        """√(xᵀ V⁻¹ x). [..., F] → [...]."""
        return np.sqrt(((features @ self.whiten.T) ** 2).sum(-1))

    def draws(self, normal: np.ndarray, noise: float) -> np.ndarray:
        """Standard normal numbers → weights drawn from the posterior. [..., F] → [..., F]."""
        return self.mean + noise * (normal @ self.whiten)


class LinearState:
    """Sums Σ x xᵀ, Σ r x, Σ r² and the number of slots shown, in grid units."""

    def __init__(self, names: Sequence[str]):
        """
        Args:
            names: what each of the F features is, in order; states merge only where these agree.

        Raises:
            PolicyError: no feature, or one named twice.
        """
        self.names = tuple(names)
        if not self.names or len(set(self.names)) != len(self.names):
            raise PolicyError(f"feature names must be distinct and at least one, got {list(self.names)}.")
        width = len(self.names)
        self._gram = np.zeros((width, width), np.int64)
        self._response = np.zeros(width, np.int64)
        self._squares = 0
        self._shown = 0

    @property
    def shown(self) -> int:
        """Slots counted so far."""
        return self._shown

    @property
    def gram(self) -> np.ndarray:
        """Σ x xᵀ, float64 [F, F]."""
        return self._gram * GRID**2

    @property
    def response(self) -> np.ndarray:
        """Σ r x, float64 [F]."""
        return self._response * GRID**2

    @property
    def version(self) -> str:
        """Twelve hex digits of a hash of everything learnt: equal states have equal versions, wherever they are."""
        content = json.dumps([self.names, self._shown, self._squares]).encode()
        return hashlib.sha256(content + self._gram.tobytes() + self._response.tobytes()).hexdigest()[:12]

    def observe(self, features: np.ndarray, rewards: np.ndarray, examination: np.ndarray | None = None) -> None:
        """Count slots that were shown, with what they have earned so far (0 for none).

        Args:
            features: [N, F]; rewards: [N].
            examination: [N] chance that each slot's position is looked at; the model then learns the reward of a slot
                that is looked at, E[r] = examination · θᵀx. 1 where absent.

        Raises:
            PolicyError: shapes differ, values are not finite or beyond the limits.
        """
        self._add(features, rewards, examination, shown=True)

    def reward_late(self, features: np.ndarray, rewards: np.ndarray, examination: np.ndarray | None = None) -> None:
        """Add rewards to slots that were counted before; as `observe`, which then gives the same state."""
        self._add(features, rewards, examination, shown=False)

    def merge(self, other: "LinearState") -> "LinearState":
        """The state after both states' events; they must not share any. Commutative and associative, bit for bit.

        Raises:
            PolicyError: their features differ.
        """
        if self.names != other.names:
            raise PolicyError(
                f"states of different features cannot be merged: {self.names} and {other.names}.",
                "Start a new state for new features.",
            )
        merged = LinearState(self.names)
        merged._gram, merged._response = self._gram + other._gram, self._response + other._response
        merged._squares, merged._shown = self._squares + other._squares, self._shown + other._shown
        return merged

    def copy(self) -> "LinearState":
        return self.merge(LinearState(self.names))

    @property
    def key(self) -> str:
        """Twelve hex digits of a hash of the features' names."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()[:12]

    def posterior(self, ridge: float, prior: Mapping[str, float] | None = None) -> Posterior:
        """Ridge regression by Cholesky.

        Args:
            ridge: > 0, the precision of the prior N(prior, I/ridge) (noise 1).
            prior: weights of features before anything is learnt, 0 for those that are not named.
        """
        believed = np.array([(prior or {}).get(name, 0.0) for name in self.names])
        precision = self.gram + ridge * np.eye(len(self.names))
        whiten = np.linalg.inv(np.linalg.cholesky(precision))
        return Posterior(whiten.T @ (whiten @ (self.response + ridge * believed)), whiten)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {
            "format": FORMAT,
            "names": list(self.names),
            "gram": self._gram.tolist(),
            "response": self._response.tolist(),
            "squares": self._squares,
            "shown": self._shown,
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, values: Any) -> "LinearState":
        """The inverse of `as_dict`.

        Raises:
            PolicyError: not such a state, or one that was changed by hand.
        """
        try:
            if values["format"] != FORMAT:
                raise PolicyError(f"policy state of format {values['format']!r}; this version reads {FORMAT}.")
            state = cls(values["names"])
            gram, response = np.array(values["gram"]), np.array(values["response"])
            fits = (
                (gram.dtype, gram.shape, response.dtype, response.shape)
                == (state._gram.dtype, state._gram.shape, state._response.dtype, state._response.shape)
            )  # fmt: skip
            if not fits or not (gram == gram.T).all():
                raise ValueError("its sums do not fit its feature names")
            state._gram, state._response = gram, response
            state._squares, state._shown = int(values["squares"]), int(values["shown"])
            if state.version != values["version"]:
                raise ValueError("its version does not fit its content")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise PolicyError(
                f"not a policy state: {error}.", "Restore the file, or remove it to start anew."
            ) from None
        return state

    def save(self, file: Path) -> None:
        """Write the state so that a reader sees the old file or the whole new one."""
        write_json(file, self.as_dict())

    @classmethod
    def load(cls, file: Path) -> "LinearState":
        """
        Raises:
            PolicyError: the file is missing or not a policy state.
        """
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PolicyError(f"{file} cannot be read as a policy state: {error}.", "Restore or remove it.") from None
        return cls.from_dict(values)

    def _add(self, features: np.ndarray, rewards: np.ndarray, examination: np.ndarray | None, shown: bool) -> None:
        features, rewards = np.asarray(features, np.float64), np.asarray(rewards, np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.names) or rewards.shape != features.shape[:1]:
            raise PolicyError(
                f"expected features [N, {len(self.names)}] and rewards [N], got {features.shape} and {rewards.shape}."
            )
        if examination is not None:
            features = features * np.asarray(examination, np.float64)[:, None]
        if not (np.abs(features) <= FEATURE_LIMIT).all() or not (np.abs(rewards) <= REWARD_LIMIT).all():
            raise PolicyError(
                f"features must be finite and within ±{FEATURE_LIMIT:g}, rewards within ±{REWARD_LIMIT:g}.",
                "Standardise the features; take logarithms of prices and counts.",
            )
        for start in range(0, len(features), CHUNK):
            x = np.rint(features[start : start + CHUNK] / GRID)
            r = np.rint(rewards[start : start + CHUNK] / GRID)
            self._response += (r @ x).astype(np.int64)
            if shown:
                self._gram += (x.T @ x).astype(np.int64)
                self._shown += len(x)
            self._squares += int((r * r).sum())
