"""Impressions and their joined clicks → the arrays that policies learn from and estimators judge by.

N answers · K candidates, padded · F features · S positions.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from fuserank.errors import PolicyError


@dataclass(frozen=True)
class SlateLog:
    """Answers that say what the policy saw and what chance it gave, oldest first."""

    names: tuple[str, ...]  # of the F features
    features: np.ndarray  # [N, K, F]
    mask: np.ndarray  # bool [N, K]
    rows: np.ndarray  # int64 [N, S] places of the shown among the candidates
    propensities: np.ndarray  # [N, S]
    rewards: np.ndarray  # [N, S] 1 or 0
    policies: tuple[str, ...]  # [N] policy@version that served
    left_out: dict[str, int]  # answers by reason

    def part(self, chosen: slice) -> "SlateLog":
        return replace(
            self,
            features=self.features[chosen],
            mask=self.mask[chosen],
            rows=self.rows[chosen],
            propensities=self.propensities[chosen],
            rewards=self.rewards[chosen],
            policies=self.policies[chosen],
        )

    def shown(self) -> np.ndarray:
        """Features of what was shown. [N, S, F]"""
        return np.take_along_axis(self.features, self.rows[..., None], axis=1)


def encode_features(names: tuple[str, ...], values: np.ndarray, errors: dict[str, Any] | None = None) -> str:
    """What a policy saw, for an impression's `features`.

    Args:
        values: [K, F], in the order of its candidate_ids.
        errors: standard errors of its propensities, where they are estimates.
    """
    told = {
        "names": list(names),
        "values": np.asarray(values, np.float64).tolist(),
        **({"errors": errors} if errors else {}),
    }
    return json.dumps(told, separators=(",", ":"))


def decode_features(text: str, candidates: int) -> tuple[tuple[str, ...], np.ndarray]:
    """The inverse: names [F] and values [K, F].

    Raises:
        PolicyError: not what `encode_features` writes for so many candidates.
    """
    try:
        seen = json.loads(text)
        names, values = tuple(seen["names"]), np.array(seen["values"], np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"not a policy's features: {error}.") from None
    if values.shape != (candidates, len(names)) or not np.isfinite(values).all():
        raise PolicyError(f"features {values.shape} for {candidates} candidates and {len(names)} names.")
    return names, values


def read_slates(impressions: pa.Table, joined: pa.Table, reward: str) -> SlateLog:
    """
    Args:
        impressions: schema IMPRESSION; joined: schema JOINED; reward: its column, `clicked` or `purchased`.

    Raises:
        PolicyError: no answer can be used; the message counts why.
    """
    columns = (joined.column(name).to_pylist() for name in ("request_id", "product_id", reward))
    rewarded = {(request, product): float(value) for request, product, value in zip(*columns, strict=True)}
    reasons: Counter[str] = Counter()
    found = []
    for impression in sorted(impressions.to_pylist(), key=lambda row: (row["timestamp"], row["request_id"])):
        answer = _answer(impression, rewarded)
        if isinstance(answer, str):
            reasons[answer] += 1
        else:
            found.append(answer)
    for position, what in ((0, "other features"), (3, "another number of positions")):
        kinds = Counter(answer[position] if position == 0 else len(answer[position]) for answer in found)
        usual = kinds.most_common(1)[0][0] if kinds else None
        kept = [a for a in found if (a[position] if position == 0 else len(a[position])) == usual]
        reasons[what] += len(found) - len(kept)
        found = kept
    left_out = {reason: count for reason, count in reasons.items() if count}
    if not found:
        raise PolicyError(
            f"no answer says what a policy saw and what chance it gave: {left_out or 'nothing was served yet'}.",
            "Serve with a policy, so that answers log features and propensities, then run `fuserank feedback`.",
        )
    widest, names = max(len(answer[1]) for answer in found), found[0][0]
    features = np.zeros((len(found), widest, len(names)))
    mask = np.zeros((len(found), widest), bool)
    for place, answer in enumerate(found):
        features[place, : len(answer[1])], mask[place, : len(answer[1])] = answer[1], True
    rows, propensities, rewards = (np.array([answer[n] for answer in found]) for n in (3, 4, 5))
    return SlateLog(names, features, mask, rows, propensities, rewards, tuple(a[2] for a in found), left_out)


def _answer(impression: dict[str, Any], rewarded: dict[tuple[str, str], float]) -> tuple | str:
    """(names, values, policy, rows, propensities, rewards) of one answer, or the reason why not."""
    candidates, shown = impression["candidate_ids"] or [], impression["product_ids"] or []
    chances = impression["propensities"] or []
    if not impression["features"] or not candidates:
        return "no features"
    if not shown or len(chances) != len(shown) or not all(0 < chance <= 1 for chance in chances):
        return "no propensities"
    try:
        names, values = decode_features(impression["features"], len(candidates))
        place = {product: row for row, product in enumerate(candidates)}
        rows = [place[product] for product in shown]
    except (PolicyError, KeyError):
        return "unreadable features"
    if len(set(rows)) != len(rows):
        return "unreadable features"
    rewards = [rewarded.get((impression["request_id"], product), 0.0) for product in shown]
    return names, values, impression["policy"] or "unknown", rows, chances, rewards
