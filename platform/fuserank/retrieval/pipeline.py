"""Candidates for a batch of requests: the union of vector search and word search under each request's filter.

Shared offline (evaluate) and online (serve); numpy only. Reads a Catalogue, writes nothing. Every candidate carries its
exact fused score, its exact BM25 and one score a modality, so that a reranker sees full features whichever side found
it. A product that lacks a modality carries no score for it: `mask` says so.

Shapes: B requests, K candidates, M modalities, D modality width, E fused width, N products.
"""

import json
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fuserank.errors import FilterError
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.delta import LiveCatalogue
from fuserank.retrieval.hybrid import Hybrid

KEPT_MASKS = 64  # compiled filters kept, one byte a product each
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class SearchRequest:
    """What one request is looked up by. Give `text`, `query_vector` or both; without either there is no candidate."""

    text: str | None = None  # searched by words
    query_vector: np.ndarray | None = None  # float32 [E]: a query's, a product's or a user's
    q_heads: np.ndarray | None = None  # float32 [M, D]: the query as seen by each product modality's head
    q_mask: np.ndarray | None = None  # bool [M]: which of them count; all if None
    filter: dict | None = None  # see filters.py
    candidates: int = 200  # how many each side hands over
    deep: int = 0  # how many each side finds for `every`; up to `candidates`, `every` are the candidates
    exclude: Sequence[int] | np.ndarray = ()  # rows never returned


@dataclass(frozen=True)
class Candidates:
    """What was found, best score first, equal ones by row."""

    rows: np.ndarray  # int64 [K]
    score: np.ndarray  # float32 [K]: fused and lexical together (hybrid.py); BM25 where there is no vector
    fused: np.ndarray  # float32 [K]: dot product with query_vector; 0 without one
    lexical: np.ndarray  # float32 [K]: BM25; 0 without text or without a shared term
    modalities: np.ndarray  # float32 [K, M]: q_heads[m] · the product's vector; -inf where `mask` is false
    mask: np.ndarray  # bool [K, M]: the product has the modality and the request counts it
    every: np.ndarray  # int64 [≥ K]: all rows that were found, candidates or not, to be counted
    error: FilterError | None = None  # this request's filter was refused; its neighbours are not touched

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, depth: int) -> "Candidates":
        """The best of them."""
        return self.take(np.arange(min(depth, len(self))))

    def take(self, places: np.ndarray) -> "Candidates":
        """Some of the candidates, in this order."""
        names = ("rows", "score", "fused", "lexical", "modalities", "mask")
        return replace(self, **{name: getattr(self, name)[places] for name in names})


class Retriever:
    """Searches one catalogue. Not thread-safe in its filter cache: one compute thread a replica."""

    def __init__(self, catalogue: Catalogue | LiveCatalogue, hybrid: Hybrid = Hybrid()):
        self.catalogue, self.hybrid = catalogue, hybrid
        self._masks: OrderedDict[str, np.ndarray] = OrderedDict()

    def search(self, requests: list[SearchRequest]) -> list[Candidates]:
        """Candidates of each request, in order. A bad filter is that request's `error`, never an exception."""
        results: list[Candidates | None] = [None] * len(requests)
        groups: dict[tuple[str, int], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            depth = min(max(request.candidates, request.deep) + len(request.exclude), self.catalogue.size)
            groups[_key(request.filter), depth].append(i)
        for (key, depth), members in groups.items():
            try:
                allowed = self.allowed(requests[members[0]].filter, key)
            except FilterError as error:
                for i in members:
                    results[i] = self._candidates(requests[i], _NONE, np.zeros(0, np.float32), _NONE, error)
                continue
            by_vector = self._by_vector([requests[i] for i in members], depth, allowed)
            by_words = self._by_words([requests[i] for i in members], depth, allowed)
            for i, near, (worded, scores) in zip(members, by_vector, by_words, strict=True):
                results[i] = self._union(requests[i], near, worded, scores)
        return [result for result in results if result is not None]

    def score(self, request: SearchRequest, rows: np.ndarray) -> Candidates:
        """These rows, whether or not a search finds them, with what a search says of each; its filter is not asked."""
        lexical = np.zeros(len(rows), np.float32)
        if request.text and len(rows):
            lexical = self.catalogue.lexical_index.score(request.text, rows)
        return self._candidates(request, rows, lexical, rows)

    def matching(self, request: SearchRequest) -> int:
        """How many products there are under the request's filter, whatever it asks for. Raises FilterError."""
        allowed = self.allowed(request.filter)
        allowed = self.catalogue.filters.present if allowed is None else allowed
        excluded = np.unique(np.asarray(request.exclude, np.int64))
        return int(np.count_nonzero(allowed)) - int(np.count_nonzero(allowed[excluded]))

    def by_vector(
        self, vector: np.ndarray, k: int, filter: dict | None = None, exclude: Sequence[int] | np.ndarray = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k products nearest to a product's or user's vector [E]: rows int64 [≤ k] and scores float32 [≤ k].

        Raises:
            FilterError: the filter is malformed.
        """
        found = self.search([SearchRequest(query_vector=vector, filter=filter, candidates=k, exclude=exclude)])[0]
        if found.error is not None:
            raise found.error
        return found.rows, found.fused

    def allowed(self, filter: dict | None, key: str | None = None) -> np.ndarray | None:
        """The compiled filter, bool [N] (shared: do not write to it), or None without a filter.

        Raises:
            FilterError: the filter is malformed or names an unknown field.
        """
        if filter is None:
            return None
        key = f"{self.catalogue.version} {key or _key(filter)}"  # masks of earlier versions age out
        if key in self._masks:
            self._masks.move_to_end(key)
            return self._masks[key]
        mask = self.catalogue.filters.mask(filter)
        self._masks[key] = mask
        if len(self._masks) > KEPT_MASKS:
            self._masks.popitem(last=False)
        return mask

    def _by_vector(self, requests: list[SearchRequest], depth: int, allowed: np.ndarray | None) -> list[np.ndarray]:
        vectors = [request.query_vector for request in requests if request.query_vector is not None]
        if not vectors:
            return [_NONE] * len(requests)
        found, _ = self.catalogue.vector_index.search(np.stack(vectors), depth, allowed)
        rows = iter(found)
        return [_kept(next(rows), request) if request.query_vector is not None else _NONE for request in requests]

    def _by_words(
        self, requests: list[SearchRequest], depth: int, allowed: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        found, scores = self.catalogue.lexical_index.search(
            [request.text or "" for request in requests], depth, allowed
        )
        results = []
        for request, rows, values in zip(requests, found, scores, strict=True):
            kept = _kept(rows, request)
            by_row = dict(zip(rows.tolist(), values.tolist(), strict=True))
            results.append((kept, np.array([by_row[row] for row in kept.tolist()], np.float32)))
        return results

    def _union(self, request: SearchRequest, near: np.ndarray, worded: np.ndarray, scores: np.ndarray) -> Candidates:
        every = np.union1d(near, worded) if request.deep > request.candidates else None
        near, worded, scores = (part[: request.candidates] for part in (near, worded, scores))
        only_near = np.setdiff1d(near, worded)
        if request.text and len(only_near):
            rest = self.catalogue.lexical_index.score(request.text, only_near)
        else:
            rest = np.zeros(len(only_near), np.float32)
        rows = np.concatenate([worded, only_near])
        return self._candidates(request, rows, np.concatenate([scores, rest]), rows if every is None else every)

    def _candidates(
        self,
        request: SearchRequest,
        rows: np.ndarray,
        lexical: np.ndarray,
        every: np.ndarray,
        error: FilterError | None = None,
    ) -> Candidates:
        catalogue, by_row = self.catalogue, np.argsort(rows)  # so that equal ranks do not depend on who found what
        rows, lexical = rows[by_row], lexical[by_row]
        if request.query_vector is not None:
            fused = catalogue.vectors[rows] @ np.asarray(request.query_vector, np.float32)
        else:
            fused = np.zeros(len(rows), np.float32)
        if request.query_vector is None:
            score = lexical
        else:
            score = self.hybrid.scores(fused, lexical) if request.text else fused
        order = np.lexsort((rows, -score))
        rows, score, fused, lexical = rows[order], score[order], fused[order], lexical[order]
        mask = np.zeros((len(rows), catalogue.mask.shape[1]), bool)
        modalities = np.full(mask.shape, -np.inf, np.float32)
        if request.q_heads is not None:
            products = catalogue.modality_vectors[rows].astype(np.float32)  # [K, M, D]
            scores = np.einsum("md,kmd->km", np.asarray(request.q_heads, np.float32), products)
            mask = catalogue.mask[rows]
            if request.q_mask is not None:
                mask = mask & np.asarray(request.q_mask, bool)
            modalities = np.where(mask, scores, np.float32(-np.inf))
        return Candidates(rows, score, fused, lexical, modalities, mask, every, error)


def _kept(rows: np.ndarray, request: SearchRequest) -> np.ndarray:
    """Rows without padding and excluded ones, cut to the number that is to be found."""
    rows = rows[rows >= 0]
    if len(request.exclude):
        rows = rows[~np.isin(rows, np.asarray(request.exclude, np.int64))]
    return rows[: max(request.candidates, request.deep)]


def _key(filter: Any) -> str:
    """One text for equal filters."""
    try:
        return "" if filter is None else json.dumps(filter, sort_keys=True, default=repr)
    except (RecursionError, TypeError, ValueError):  # hostile nesting or keys: compiling it says what is wrong
        return f"#{id(filter)}"
