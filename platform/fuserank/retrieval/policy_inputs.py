"""What a policy sees of each candidate: features of bounded size that mean the same in every answer and generation.

The first three – a constant, the model's own score among the candidates of this answer, its own place – are put before
the rest once the model's final order is known. Then, of a recommendation: behaviour, affinities, likeness to the user's
turns by each modality, whether anybody has turned to the product, its price tier, the product of user's and candidate's
fused vectors in PROJECTION random directions (each estimates their dot product, Johnson & Lindenstrauss 1984, so that
weights mean much the same when a new model turns the space), how near it is to the last turn and to the nearest of the
latest, the share of the last one's values that it has, and the user's liking (liking.py), also times the last two. Of a
search: what the reranker reads.

K candidates · F features · M modalities · E width of a fused vector.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from fuserank.feedback.behaviour import Behaviour
from fuserank.models.candidates import AFFINITY, BEHAVIOUR, feature_names
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import LiveCatalogue
from fuserank.retrieval.rerank_inputs import taste
from fuserank.retrieval.traits import TIERS

OWN = ("bias", "score", "place")
PROJECTION = 8
LATEST = 10  # turns that the nearest is sought among
LIKING = 3.0  # what liking is multiplied by: it is a chance
RELATED = ("near_last", "nearest", "common", "liking", "liking_near", "liking_common")
BOUND = 4.0  # features lie within ±BOUND
DIGITS = 4  # they are rounded to so many, so that the log holds what the policy saw


def names(kind: str, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """What each of the F features is, of answers to `recommend` or `search`."""
    if kind == "search":
        return (*OWN, *_searched(modalities))
    tastes = tuple(f"{m}_taste" for m in modalities)
    products = tuple(f"match_{n}" for n in range(PROJECTION))
    return (*OWN, *BEHAVIOUR, *AFFINITY, *tastes, "unseen", "low_price", "high_price", *products, *RELATED)


def recommended(
    rows: np.ndarray,
    catalogue: Catalogue | LiveCatalogue,
    behaviour: Behaviour,
    recent: Sequence[int],
    user: np.ndarray | None,
    liked: np.ndarray | None = None,
) -> np.ndarray:
    """Of recommended products, float32 [K, F − 3].

    Args:
        recent: rows of the user's turns, oldest first.
        user: float32 [E], the direction of the user's latest turns, None for strangers.
        liked: float32 [K], the user's liking (liking.py), None where nothing is known of what they were shown.
    """
    past = np.array(recent, np.int64)
    vectors, present = catalogue.modality_vectors[rows], catalogue.mask[rows]
    tastes = taste(vectors, present, catalogue.modality_vectors[past], catalogue.mask[past])
    counted, affinity = behaviour.columns(rows, recent), catalogue.traits.affinity(rows, recent)
    tier = catalogue.traits.tiers(rows)
    told = (behaviour.unseen(rows), tier == 0, tier == TIERS - 1)
    matches = np.zeros((len(rows), PROJECTION), np.float32)
    if user is not None:
        directions = _directions(len(user))
        matches = (np.asarray(catalogue.vectors[rows], np.float32) @ directions) * (user @ directions)
    related = _related(rows, catalogue, recent, np.zeros(len(rows), np.float32) if liked is None else liked)
    return np.concatenate([counted, affinity, tastes, np.stack(told, 1), matches, related], 1, dtype=np.float32)


def _related(
    rows: np.ndarray, catalogue: Catalogue | LiveCatalogue, recent: Sequence[int], liked: np.ndarray
) -> np.ndarray:
    """float32 [K, 6]: RELATED."""
    near, nearest, common = np.zeros((3, len(rows)), np.float32)
    if len(recent):
        latest = np.asarray(catalogue.vectors[np.array(recent[-LATEST:], np.int64)], np.float32)
        likeness = np.asarray(catalogue.vectors[rows], np.float32) @ latest.T
        near, nearest, common = likeness[:, -1], likeness.max(1), catalogue.traits.common(rows, recent[-1])
    liking = LIKING * liked
    return np.stack([near, nearest, common, liking, liking * near, liking * common], 1)


def searched(features: np.ndarray, modalities: tuple[str, ...]) -> np.ndarray:
    """Of found products, float32 [K, F − 3], out of what the reranker reads."""
    place = {name: column for column, name in enumerate(feature_names(modalities))}
    return features[:, [place[name] for name in _searched(modalities)]]


def complete(scores: np.ndarray, features: np.ndarray) -> np.ndarray:
    """All that a policy sees, float64 [K, F].

    Args:
        scores: [K] the model's final ones, best first; features: [K, F − 3].
    """
    spread = float(np.std(scores))
    standard = (scores - np.mean(scores)) / spread if spread > 1e-6 else np.zeros(len(scores))
    own = np.stack([np.ones(len(scores)), standard, 1 / np.log2(np.arange(len(scores)) + 2)], 1)
    whole = np.concatenate([own, features], 1, dtype=np.float64)
    return np.round(BOUND * np.tanh(whole / BOUND), DIGITS)


def _searched(modalities: tuple[str, ...]) -> tuple[str, ...]:
    scores, tastes = (f"{m}_score" for m in modalities), (f"{m}_taste" for m in modalities)
    return ("lexical_share", *scores, *BEHAVIOUR, *AFFINITY, *tastes)


@cache
def _directions(width: int) -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (width, PROJECTION))
