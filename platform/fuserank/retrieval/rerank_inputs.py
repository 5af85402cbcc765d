"""Candidates of one request → what the reranker reads of them; the same offline (index, evaluate) and served.

K candidates · M modalities · T recent products · D, E widths of modality and fused vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fuserank.feedback.behaviour import Behaviour
from fuserank.models.candidates import candidate_features
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import LiveCatalogue
from fuserank.retrieval.guests import GuestCatalogue
from fuserank.retrieval.pipeline import Candidates

if TYPE_CHECKING:
    from fuserank.models.reranker import Context, Reranker

RECENT = 16  # latest turns of a user that attention looks at (T)
PRIOR = 3.0  # products of no taste that every past is thought to begin with


@dataclass(frozen=True, slots=True)
class RerankInputs:
    """One request's candidates as the reranker reads them."""

    features: np.ndarray  # float32 [K, F]
    asked: np.ndarray  # float32 [D]
    fused: np.ndarray  # float32 [K, E]
    products: np.ndarray  # float16 [K, M, D]
    present: np.ndarray  # bool [K, M]
    recent: np.ndarray  # float32 [≤ T, E], oldest first

    def __len__(self) -> int:
        return len(self.features)


def rerank_inputs(
    found: Candidates,
    heads: np.ndarray,
    catalogue: Catalogue | LiveCatalogue | GuestCatalogue,
    behaviour: Behaviour,
    recent: Sequence[int],
) -> RerankInputs:
    """What is known of every candidate, of the query and of the user.

    Args:
        heads: float32 [M, D], the query as each modality of a product is asked.
        recent: rows of the user's turns, oldest first.
    """
    turned = np.array(recent, np.int64)
    products, present = catalogue.modality_vectors[found.rows], catalogue.mask[found.rows]
    taste_of = taste(products, present, catalogue.modality_vectors[turned], catalogue.mask[turned])
    counted, affinity = behaviour.columns(found.rows, recent), catalogue.traits.affinity(found.rows, recent)
    features = candidate_features(found.score, found.lexical, found.modalities, found.mask, counted, affinity, taste_of)
    fused = np.asarray(catalogue.vectors[found.rows], np.float32)
    past = np.asarray(catalogue.vectors[turned[-RECENT:]], np.float32)
    return RerankInputs(features, heads.mean(0), fused, products, present, past)


def taste(products: np.ndarray, present: np.ndarray, past: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean likeness of each candidate to the past by each modality, PRIOR more being like nothing: float32 [K, M]."""
    if not len(past):
        return np.zeros(present.shape, np.float32)
    there = np.where(known[..., None], past, 0).astype(np.float32).sum(0) / (known.sum(0) + PRIOR)[:, None]
    mine = np.where(present[..., None], products, 0).astype(np.float32)
    return np.einsum("kmd,md->km", mine, there)


def take(inputs: RerankInputs, places: np.ndarray) -> RerankInputs:
    """Some of the candidates, in this order."""
    names = ("features", "fused", "products", "present")
    return replace(inputs, **{name: getattr(inputs, name)[places] for name in names})


def as_batch(parts: Sequence[RerankInputs], length: int | None = None) -> "tuple[np.ndarray, Context, np.ndarray]":
    """Features [B, K, F], Context and mask [B, K] of several requests, padded to `length` (None: the longest)."""
    import torch

    from fuserank.models.reranker import Context

    size = length or max((len(part) for part in parts), default=1)
    first = parts[0]

    def padded(arrays: list[np.ndarray], rows: int) -> np.ndarray:
        out = np.zeros((len(arrays), rows, *arrays[0].shape[1:]), arrays[0].dtype)
        for place, array in enumerate(arrays):
            out[place, : len(array)] = array
        return out

    count = np.array([len(part) for part in parts])
    recent_count = np.array([len(part.recent) for part in parts])
    context = Context(
        torch.from_numpy(np.stack([part.asked for part in parts])),
        torch.from_numpy(padded([part.fused for part in parts], size)),
        torch.from_numpy(padded([part.products for part in parts], size)),
        torch.from_numpy(padded([part.present for part in parts], size)),
        torch.from_numpy(padded([part.recent.reshape(-1, first.fused.shape[1]) for part in parts], RECENT)),
        torch.from_numpy(np.arange(RECENT) < recent_count[:, None]),
    )
    return padded([part.features for part in parts], size), context, np.arange(size) < count[:, None]


def rerank(reranker: "Reranker", seen: RerankInputs | np.ndarray) -> np.ndarray:
    """Scores of one request's candidates, float32 [K]; the one way there is, offline and served.

    Args:
        seen: their features [K, F] are enough for a reranker that does not attend.
    """
    import torch

    if not len(seen):
        return np.zeros(0, np.float32)
    features = seen if isinstance(seen, np.ndarray) else seen.features
    context = as_batch([seen])[1] if reranker.attends and isinstance(seen, RerankInputs) else None
    with torch.inference_mode():
        return reranker(torch.from_numpy(features[None]), context)[0].numpy()


def placed(score: np.ndarray, reranked: np.ndarray) -> np.ndarray:
    """Final scores float32 [K]: those of the reranker for the first D, the rest below them in the order they had.

    Args:
        score: [K], best first; reranked: [D ≤ K].
    """
    depth = len(reranked)
    if not depth or depth == len(score):
        return reranked if depth else score
    return np.concatenate([reranked, reranked.min() + score[depth:] - score[depth - 1]], dtype=np.float32)
