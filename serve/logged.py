"""What an answer leaves in the log: who was shown what, out of what, with which chance, by which policy."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fuserank.feedback.slate_log import encode_features
from serve.live_documents import LiveDocuments
from serve.messages import Ranked, Slate

GREEDY = "greedy@0"  # the model's own order, shown with certainty


@dataclass(frozen=True)
class Drawn:
    """How an answer came about."""

    policy: str
    propensities: list[float]  # of each hit
    slate_propensity: float
    candidate_ids: list[str]
    features: str | None  # feedback.slate_log.encode_features


def drawn(documents: LiveDocuments, ranked: Ranked, shown: list[str]) -> Drawn:
    """How the hits of an answer came about.

    Args:
        shown: their product ids.
    """
    slate = ranked.slate
    if slate is None:
        return Drawn(GREEDY, [1.0] * len(shown), 1.0, shown, None)
    known = [(documents.known([row]) or [None])[0] for row in ranked.found.rows[slate.pool].tolist()]
    chosen = slate.chosen
    chance = {known[row]: float(chance) for row, chance in zip(chosen.rows, chosen.propensities, strict=True)}
    propensities = [chance[product] for product in shown]
    if None in known:  # deleted since it was found: what was shown is no longer what was drawn, nothing learns from it
        return Drawn(chosen.policy, propensities, chosen.slate_propensity, shown, None)
    told = encode_features(slate.choice.names, slate.choice.features, _errors(slate))
    return Drawn(chosen.policy, propensities, chosen.slate_propensity, [name for name in known if name], told)


def tell(answer: dict[str, Any], how: Drawn) -> None:
    """Put into each hit of an answer the chance it had and the policy that drew it."""
    for hit, propensity in zip(answer["hits"], how.propensities, strict=True):
        hit |= {"propensity": propensity, "policy": how.policy}


def impression(
    answer: dict[str, Any],
    ranked: Ranked,
    how: Drawn,
    kind: str,
    query: str | None,
    user_id: str | None,
    session_id: str | None,
) -> dict[str, Any]:
    """IMPRESSION fields of an answer."""
    return {
        "request_id": answer["request_id"],
        "kind": kind,
        "scenario": ranked.found.source,
        "query": query,
        "user_id": user_id,
        "session_id": session_id,
        "candidate_ids": how.candidate_ids,
        "product_ids": [hit["product_id"] for hit in answer["hits"]],
        "propensities": how.propensities,
        "slate_propensity": how.slate_propensity,
        "features": how.features,
        "policy": how.policy,
        "generation": answer["generation"],
        "timestamp": datetime.now(UTC),
    }


def _errors(slate: Slate) -> dict[str, Any] | None:
    chosen = slate.chosen
    if not np.any(chosen.errors) and not chosen.slate_error:
        return None
    return {"propensities": np.round(chosen.errors, 6).tolist(), "slate": round(chosen.slate_error, 6)}
