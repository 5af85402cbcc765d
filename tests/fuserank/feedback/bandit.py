"""The Open Bandit logs beside the checkout: 46 products, one a row, shown at one of three positions."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "bandit"
ARMS, POSITIONS = 46, 3
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/bandit is not here")


@dataclass(frozen=True)
class BanditLog:
    arms: np.ndarray  # int64 [N]
    positions: np.ndarray  # int64 [N], 0-based
    clicks: np.ndarray  # [N]
    propensities: np.ndarray  # [N]
    users: np.ndarray  # int64 [N, 4]: categories of the user, by the sorted values of both logs
    affinity: np.ndarray  # [N]: of the user for the shown product


def read(policy: str) -> BanditLog:
    """`random` or `bts`, in order of time."""
    with (DATA / policy / "women" / "women.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["timestamp"])
    arms = np.array([int(row["item_id"]) for row in rows])
    users = [np.unique([row[f"user_feature_{n}"] for row in rows], return_inverse=True)[1] for n in range(4)]
    return BanditLog(
        arms=arms,
        positions=np.array([int(row["position"]) for row in rows]) - 1,
        clicks=np.array([float(row["click"]) for row in rows]),
        propensities=np.array([float(row["propensity_score"]) for row in rows]),
        users=np.stack(users, axis=1),
        affinity=np.array([float(row[f"user-item_affinity_{arm}"]) for row, arm in zip(rows, arms, strict=True)]),
    )


def chances(log: BanditLog) -> np.ndarray:
    """How often a policy that looks at no context put each product at each position. [arms, positions]"""
    counts = np.zeros((ARMS, POSITIONS))
    np.add.at(counts, (log.arms, log.positions), 1)
    return counts / counts.sum(0)


def features(positions: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """Positions int [N] and (shares of) products [N, arms] → [N, 1, F]."""
    return np.concatenate([np.eye(POSITIONS)[positions], arms], axis=1)[:, None]
