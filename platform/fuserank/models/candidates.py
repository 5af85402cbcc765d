"""What is known of the candidates of a query, as the reranker reads it; without torch, because the gateway has none.

K candidates · M modalities · F features.
"""

import numpy as np

BEHAVIOUR = ("popularity", "click_rate", "together")  # what feedback/behaviour.py counts
AFFINITY = ("value_affinity", "price_affinity")  # what retrieval/traits.py counts


def feature_names(modalities: tuple[str, ...]) -> tuple[str, ...]:
    """What each of the F features is, in order."""
    return (
        "retrieved",
        "lexical",
        "lexical_share",
        *(f"{m}_score" for m in modalities),
        *(f"{m}_missing" for m in modalities),
        *BEHAVIOUR,
        *AFFINITY,
        *(f"{m}_taste" for m in modalities),
    )


def personal_features(modalities: tuple[str, ...]) -> tuple[bool, ...]:
    """Of each of the F features, whether it tells of the user; it is 0 for nobody in particular."""
    return tuple(name in ("together", *AFFINITY) or name.endswith("_taste") for name in feature_names(modalities))


def candidate_features(
    retrieved: np.ndarray,
    lexical: np.ndarray,
    scores: np.ndarray,
    mask: np.ndarray,
    behaviour: np.ndarray | None = None,
    affinity: np.ndarray | None = None,
    taste: np.ndarray | None = None,
) -> np.ndarray:
    """One query's features.

    Args:
        retrieved: [K] the retriever's score; lexical: [K] BM25, 0 without a common word; scores: [K, M] of each
            modality alone (any value where missing); mask: [K, M].
        behaviour: [K, 3] (BEHAVIOUR), affinity: [K, 2] (AFFINITY), taste: [K, M], likeness to the user's products by
            each modality; zeros where nothing is known.

    Returns:
        float32 [K, F], in the order of `feature_names`.
    """
    words = np.log1p(np.maximum(lexical, 0))
    known = np.where(mask, scores, 0)
    behaviour = np.zeros((len(retrieved), len(BEHAVIOUR))) if behaviour is None else behaviour
    affinity = np.zeros((len(retrieved), len(AFFINITY))) if affinity is None else affinity
    taste = np.zeros(mask.shape) if taste is None else taste
    columns = [
        retrieved[:, None],
        words[:, None],
        word_share(lexical)[:, None],
        known,
        ~mask,
        behaviour,
        affinity,
        taste,
    ]
    return np.concatenate(columns, 1, dtype=np.float32)


def word_share(lexical: np.ndarray) -> np.ndarray:
    """[K] of the best word score among them: 1 for the best, 0 without a common word."""
    return lexical / max(float(lexical.max(initial=0)), 1e-6)
