"""Recommendations and similar products: one vector a request, no words, nothing reranked. Part of the retriever.

Legend: B requests, K candidates, E width of a fused vector.
"""

import time
from typing import TYPE_CHECKING

import numpy as np

from fuserank.errors import FilterError
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.history import Turn, turns
from fuserank.retrieval import policy_inputs
from fuserank.retrieval.pipeline import Candidates, Retriever, SearchRequest
from serve.live import Live
from serve.messages import Found, RetrieverQuery, Source

if TYPE_CHECKING:
    from fuserank.models.fused import FusedModel

LATEST = 5  # turns whose products stand for a user that no recommender reads
NEWEST = 2000  # of the products that nobody has turned to, the latest are looked through for fresh candidates


class Related:
    """Answers for one generation."""

    def __init__(self, live: Live, retriever: Retriever, model: "FusedModel", behaviour: Behaviour, fresh: int):
        """
        Args:
            fresh: of the candidates that a policy draws from, how many nobody has turned to yet.
        """
        self._live, self._catalogue, self._retriever = live, live.catalogue, retriever
        self._model, self._behaviour, self._fresh = model, behaviour, fresh

    def answer(self, queries: list[RetrieverQuery]) -> list[Found | Exception]:
        """One vector search for the whole batch."""
        from serve.recommender import user_vectors

        events = [self.events(query) for query in queries]
        pasts = [turns(found) for found in events]
        known = [i for i, query in enumerate(queries) if query.ask.kind == "recommend" and pasts[i]]
        recommender = self._model.recommender
        vectors: dict[int, tuple[np.ndarray, Source]] = {}
        if recommender is not None and known:
            users = user_vectors(recommender, self._catalogue.vectors, [pasts[i] for i in known])
            vectors = {i: (vector, "recommender") for i, vector in zip(known, users, strict=True)}
        for i, query in enumerate(queries):
            if i not in vectors and pasts[i]:
                latest = [row for row, _, _ in pasts[i]][-LATEST:]
                source: Source = "similar" if query.ask.kind == "similar" else "content"
                vectors[i] = (self._catalogue.vectors[np.array(latest)].mean(0), source)
        excluded = [
            sorted({row for row, _, _ in found if query.ask.exclude_seen} | set(self.rows(query.ask.exclude)))
            for query, found in zip(queries, events, strict=True)
        ]
        requests = [
            SearchRequest(
                query_vector=vector,
                filter=queries[i].ask.filter,
                candidates=max(queries[i].ask.depth, queries[i].ask.pool),
                exclude=excluded[i],
            )
            for i, (vector, _) in vectors.items()
        ]
        nearest = dict(zip(vectors, self._retriever.search(requests), strict=True))
        found = [
            self._found(nearest[i], vectors[i][1]) if i in nearest else self._popular(query, excluded[i])
            for i, query in enumerate(queries)
        ]
        return [
            self._told(query, one, vectors.get(i, (None, ""))[0], pasts[i], excluded[i])
            if query.ask.pool and isinstance(one, Found)
            else one
            for i, (query, one) in enumerate(zip(queries, found, strict=True))
        ]

    def events(self, query: RetrieverQuery) -> list[Turn]:
        """Stored events and products looked at just now, oldest first; products this generation lacks are left out."""
        events = [(event.product_id, event.type, event.time) for event in query.history]
        events += [(product_id, "view", time.time()) for product_id in query.ask.product_ids]
        rows = self._catalogue.rows
        return [(rows[product_id], kind, when) for product_id, kind, when in events if product_id in rows]

    def rows(self, product_ids: tuple[str, ...]) -> list[int]:
        """Rows of the products that this generation knows."""
        rows = self._catalogue.rows
        return [rows[product_id] for product_id in product_ids if product_id in rows]

    def _found(self, found: Candidates, source: Source) -> Found | Exception:
        return found.error or Found(found.rows, found.score, None, source, self._model.modalities)

    def _popular(self, query: RetrieverQuery, excluded: list[int]) -> Found | Exception:
        """For users nothing is known of."""
        try:
            rows = self._allowed(query, excluded)
        except FilterError as error:
            return error
        popularity = self._live.popularity
        best = rows[np.argsort(-popularity[rows], kind="stable")][: max(query.ask.depth, query.ask.pool)]
        return Found(best, popularity[best], None, "popularity", self._model.modalities)

    def _told(
        self, query: RetrieverQuery, found: Found, user: np.ndarray | None, past: list[Turn], excluded: list[int]
    ) -> Found:
        """With fresh products among the candidates, and all that a policy is told of each."""
        rows, score = found.rows, found.score
        lacking = min(self._fresh, query.ask.pool - 1) - int(self._behaviour.unseen(rows).sum())
        if lacking > 0:
            new, worth = self._new(query, user, np.setdiff1d(self._allowed(query, excluded), rows), lacking)
            kept = min(len(rows), query.ask.pool - len(new))
            rows, score = np.concatenate([rows[:kept], new]), np.concatenate([score[:kept], worth])
            best = np.lexsort((rows, -score))
            rows, score = rows[best], score[best]
        told = policy_inputs.recommended(rows, self._catalogue, self._behaviour, [row for row, _, _ in past], user)
        return Found(rows, score, None, found.source, found.modalities, told=told)

    def _new(
        self, query: RetrieverQuery, user: np.ndarray | None, allowed: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the latest products that nobody has turned to: those nearest to the user, for strangers the latest."""
        new = allowed[self._behaviour.unseen(allowed)][-NEWEST:]
        if user is None:
            new = new[::-1][:count]
            return new, self._live.popularity[new]
        near = np.asarray(self._catalogue.vectors[new], np.float32) @ np.asarray(user, np.float32)
        best = np.argsort(-near, kind="stable")[:count]
        return new[best], near[best].astype(np.float32)

    def _allowed(self, query: RetrieverQuery, excluded: list[int]) -> np.ndarray:
        """Rows that may be shown, in order. Raises FilterError."""
        allowed = self._retriever.allowed(query.ask.filter)
        rows = np.flatnonzero(self._catalogue.present if allowed is None else allowed)
        return rows[~np.isin(rows, excluded)]
