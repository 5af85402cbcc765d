"""Recommendations and similar products: no words, nothing reranked. Part of the retriever.

Legend: B requests, K candidates, E width of a fused vector.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fuserank.config import Online, Rules
from fuserank.errors import FilterError
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.history import Turn, turns
from fuserank.feedback.neighbours import Neighbours
from fuserank.feedback.sequences import sequence
from fuserank.retrieval import policy_inputs
from fuserank.retrieval.blend import Blend, Blender, Wish
from fuserank.retrieval.expected import Expected
from fuserank.retrieval.liking import Liking
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.rules import Ruled
from serve.live import Live
from serve.messages import Display, Found, RetrieverQuery, Source

if TYPE_CHECKING:
    from fuserank.models.fused import FusedModel

NEWEST = 2000  # of the products that nobody has turned to, the latest are looked through for fresh candidates


class Related:
    """Answers for one generation."""

    def __init__(
        self,
        live: Live,
        retriever: Retriever,
        model: "FusedModel",
        behaviour: Behaviour,
        neighbours: Neighbours,
        blend: Blend = Blend(),
        online: Online | None = None,
        rules: Rules = Rules(),
    ):
        """
        Args:
            blend: how much each part of a recommendation counts.
            online: of the policy that draws from the candidates; None: there is none.
            rules: of the shop; one that cannot hold in this catalogue is logged, and holds for no product.
        """
        self._live, self._catalogue, self._retriever = live, live.catalogue, retriever
        self._model, self._behaviour, self._online = model, behaviour, online or Online()
        self._liking = Liking.of(live.catalogue) if online is not None else None
        recommender = model.recommender
        self._expected = None if recommender is None else Expected(recommender, live.catalogue)
        self._blender = Blender(retriever, behaviour, neighbours, self._expected, blend)
        self._ruled = Ruled(rules, retriever)

    def answer(self, queries: list[RetrieverQuery]) -> list[Found | Exception]:
        """One vector search for all recommendations of the batch, and one for all that asks for similar products."""
        events = [self.events(query) for query in queries]
        pasts = [turns(found) for found in events]
        excluded = [
            sorted({row for row, _, _ in found if query.ask.exclude_seen} | set(self.rows(query.ask.exclude)))
            for query, found in zip(queries, events, strict=True)
        ]
        found: dict[int, Found | Exception] = {}
        found |= self._recommended(queries, pasts, excluded)
        found |= self._similar(queries, pasts, excluded)
        return [
            found[i] if i in found else self._told(query, self._popular(query, excluded[i]), None, [], excluded[i])
            for i, query in enumerate(queries)
        ]

    def _recommended(
        self, queries: list[RetrieverQuery], pasts: list[list[Turn]], excluded: list[list[int]]
    ) -> dict[int, Found | Exception]:
        known = [i for i, query in enumerate(queries) if query.ask.kind == "recommend" and pasts[i]]
        users: Sequence[np.ndarray | None] = [None] * len(known)
        if self._expected is not None and known:
            users = list(self._expected.users([sequence(pasts[i]) for i in known]))
        source: Source = "content" if self._expected is None else "recommender"
        recent = [[row for row, _, _ in pasts[i]] for i in known]
        wishes = [
            Wish(rows, user, queries[i].ask.filter, excluded[i])
            for i, rows, user in zip(known, recent, users, strict=True)
        ]
        depths = [self._ruled.depth(_wanted(queries[i])) for i in known]
        answers: dict[int, Found | Exception] = {}
        for i, wish, found in zip(known, wishes, self._blender.recommend(wishes, depths), strict=True):
            if isinstance(found, tuple):
                best = Found(*found, None, source, self._model.modalities)
                answers[i] = self._told(queries[i], best, wish, pasts[i], excluded[i])
            else:
                answers[i] = found
        return answers

    def _similar(
        self, queries: list[RetrieverQuery], pasts: list[list[Turn]], excluded: list[list[int]]
    ) -> dict[int, Found | Exception]:
        asked = [i for i, query in enumerate(queries) if query.ask.kind == "similar" and pasts[i]]
        requests = [
            SearchRequest(
                query_vector=self._catalogue.vectors[np.array([row for row, _, _ in pasts[i]])].mean(0),
                filter=queries[i].ask.filter,
                candidates=queries[i].ask.depth,
                exclude=excluded[i],
            )
            for i in asked
        ]
        return {
            i: found.error or Found(found.rows, found.score, None, "similar", self._model.modalities)
            for i, found in zip(asked, self._retriever.search(requests), strict=True)
        }

    def events(self, query: RetrieverQuery) -> list[Turn]:
        """Stored events and products looked at just now, oldest first; products this generation lacks are left out."""
        events = [(event.product_id, event.type, event.time) for event in query.past.events]
        events += [(product_id, "view", time.time()) for product_id in query.ask.product_ids]
        rows = self._catalogue.rows
        return [(rows[product_id], kind, when) for product_id, kind, when in events if product_id in rows]

    def rows(self, product_ids: tuple[str, ...]) -> list[int]:
        """Rows of the products that this generation knows."""
        rows = self._catalogue.rows
        return [rows[product_id] for product_id in product_ids if product_id in rows]

    def _popular(self, query: RetrieverQuery, excluded: list[int]) -> Found | Exception:
        """For users nothing is known of."""
        try:
            rows = self._allowed(query, excluded)
        except FilterError as error:
            return error
        popularity = self._live.popularity
        best = rows[np.argsort(-popularity[rows], kind="stable")][: self._ruled.depth(_wanted(query))]
        return Found(best, popularity[best], None, "popularity", self._model.modalities)

    def _told(
        self,
        query: RetrieverQuery,
        found: Found | Exception,
        wish: Wish | None,
        past: list[Turn],
        excluded: list[int],
    ) -> Found | Exception:
        """By the shop's rules; for a policy with fresh products among the candidates, and all it is told of each."""
        if isinstance(found, Exception) or query.ask.kind != "recommend":
            return found
        rows, score = found.rows, found.score
        lacking = min(self._online.fresh, query.ask.pool - 1) - int(self._behaviour.unseen(rows).sum())
        if query.ask.pool and lacking > 0:
            new, worth = self._new(wish, np.setdiff1d(self._allowed(query, excluded), rows), lacking)
            kept = min(len(rows), self._ruled.depth(query.ask.pool) - len(new))
            rows, score = np.concatenate([rows[:kept], new]), np.concatenate([score[:kept], worth])
            best = np.lexsort((rows, -score))
            rows, score = rows[best], score[best]
        if self._ruled:
            allowed = self._retriever.allowed(query.ask.filter)
            rows, score = self._ruled.apply(rows, score, _wanted(query), allowed, excluded)
        told = None
        if query.ask.pool:
            recent, user = [row for row, _, _ in past], None if wish is None else self._blender.content(wish.recent)
            liked = self._likes(rows, query.past.shown)
            told = policy_inputs.recommended(rows, self._catalogue, self._behaviour, recent, user, liked)
        return dataclasses.replace(found, rows=rows, score=score, told=told, ordered=bool(self._ruled))

    def _likes(self, rows: np.ndarray, shown: Sequence[Display]) -> np.ndarray | None:
        """float32 [K]: the user's liking of these products; None where nothing is known of what they were shown."""
        known = [one for one in shown if one.product_id in self._catalogue.rows]
        if not known or self._liking is None:
            return None
        vectors, looked = self._catalogue.vectors, self._online.looked_at or [1.0]
        seen = vectors[np.array([self._catalogue.rows[one.product_id] for one in known])]
        looks = np.array([looked[min(one.place, len(looked) - 1)] for one in known])
        return self._liking.scores(vectors[rows], seen, looks, np.array([one.turned for one in known]))

    def _new(self, wish: Wish | None, allowed: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the latest products that nobody has turned to: the best for the user, for strangers the latest."""
        new = allowed[self._behaviour.unseen(allowed)][-NEWEST:]
        if wish is None:
            new = new[::-1][:count]
            return new, self._live.popularity[new]
        score = self._blender.scores(new, wish)
        best = np.argsort(-score, kind="stable")[:count]
        return new[best], score[best]

    def _allowed(self, query: RetrieverQuery, excluded: list[int]) -> np.ndarray:
        """Rows that may be shown, in order. Raises FilterError."""
        allowed = self._retriever.allowed(query.ask.filter)
        rows = np.flatnonzero(self._catalogue.present if allowed is None else allowed)
        return rows[~np.isin(rows, excluded)]


def _wanted(query: RetrieverQuery) -> int:
    return max(query.ask.depth, query.ask.pool)
