"""Recommendations out of several signals: what the recommender expects, likeness to the latest turns, what is turned to
together and near one another, popularity, affinity to a product's values and price. The same offline (index fits the
weights) and served.

Candidates are what the recommender expects most, the vectors nearest to the latest turns', neighbours of these turns
and what is popular; each then gets its whole score. A product that nobody has turned to is taken to be turned to
as its nearest neighbours by content are.

K candidates · P parts · E width of a fused vector · W width of the recommender.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuserank.errors import FilterError
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.neighbours import Neighbours
from fuserank.retrieval.expected import Expected
from fuserank.retrieval.pipeline import Retriever, SearchRequest

PARTS: tuple[str, ...] = ("recommender", "content", "together", "near", "popularity", "values", "price")
LATEST = 5  # turns that say what a user is after now
FADE = 0.8  # of each turn against the one after it
NEAREST = 200  # candidates of each vector search, at least
NEIGHBOURS = 200  # candidates that are turned to together with the latest turns
POPULAR = 100
ALIKE = 5  # products that stand for one that nobody has turned to yet, in what is counted of behaviour
SEARCHED = 50  # nearest products that these are looked for among
KEPT = 10_000  # products whose neighbours are remembered
LEAST = 1e-4  # of a user's neighbourhood: the share that a product outside it is taken to have
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Blend:
    """How much each part counts; {} stands for the recommender alone, or without one for likeness alone."""

    weights: Mapping[str, float] = field(default_factory=dict)  # of PARTS; those that are not named count nothing

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> "Blend":
        """What a generation's manifest says."""
        return cls({name: float(value) for name, value in manifest.get("blend", {}).items() if name in PARTS})

    def vector(self, recommended: bool) -> np.ndarray:
        """float32 [P], for users of whom the recommender says something, or nothing."""
        weights = self.weights or ({"recommender": 1.0} if recommended else {"content": 1.0})
        return np.array([weights.get(name, 0.0) for name in PARTS], np.float32)


@dataclass(frozen=True)
class Wish:
    """Whom to recommend to, and what."""

    recent: Sequence[int]  # rows of the user's turns, oldest first; at least one
    user: np.ndarray | None  # float32 [W], the recommender's
    filter: dict | None = None
    exclude: Sequence[int] | np.ndarray = ()  # rows never returned


@dataclass(frozen=True)
class Offer:
    """The candidates of one wish."""

    rows: np.ndarray  # int64 [K], in order
    parts: np.ndarray  # float32 [K, P]


class Blender:
    """Finds and scores recommendations in one catalogue."""

    def __init__(
        self,
        retriever: Retriever,
        behaviour: Behaviour,
        neighbours: Neighbours,
        expected: Expected | None,
        blend: Blend = Blend(),
    ):
        """expected: None for a model without a recommender."""
        self._retriever, self._behaviour, self.blend = retriever, behaviour, blend
        self._neighbours, self._expected = neighbours, expected
        self._known_alike: dict[tuple[int, bytes], np.ndarray] = {}  # row and its vector → rows
        self._popular = np.argsort(-behaviour.popularity, kind="stable")[:POPULAR]
        self._popular = self._popular[behaviour.popularity[self._popular] > 0]

    def recommend(
        self, wishes: Sequence[Wish], depths: Sequence[int]
    ) -> list[tuple[np.ndarray, np.ndarray] | FilterError]:
        """Rows int64 [≤ depth] and scores float32 of each wish, best first, equal ones by row."""
        found: list[tuple[np.ndarray, np.ndarray] | FilterError] = []
        for wish, depth, offer in zip(wishes, depths, self.offers(wishes, depths), strict=True):
            if isinstance(offer, FilterError):
                found.append(offer)
                continue
            score = offer.parts @ self.blend.vector(wish.user is not None)
            best = np.lexsort((offer.rows, -score))[:depth]
            found.append((offer.rows[best], score[best]))
        return found

    def offers(self, wishes: Sequence[Wish], depths: Sequence[int]) -> list[Offer | FilterError]:
        """The candidates of each wish with their parts; at least `depth` where so many may be shown."""
        counts = [max(depth, NEAREST) for depth in depths]
        requests = [
            SearchRequest(None, self.content(w.recent), filter=w.filter, candidates=count, exclude=w.exclude)
            for w, count in zip(wishes, counts, strict=True)
        ]
        found = self._retriever.search(requests)
        return [
            near.error if near.error is not None else self._offer(wish, near.rows, count)
            for wish, near, count in zip(wishes, found, counts, strict=True)
        ]

    def scores(self, rows: np.ndarray, wish: Wish) -> np.ndarray:
        """float32 [K] of these rows."""
        return self.parts(rows, wish.recent, wish.user) @ self.blend.vector(wish.user is not None)

    def parts(self, rows: np.ndarray, recent: Sequence[int], user: np.ndarray | None) -> np.ndarray:
        """float32 [K, P]."""
        catalogue, latest = self._retriever.catalogue, recent[-LATEST:]
        vectors = np.asarray(catalogue.vectors[rows], np.float32)
        counted, affinity = self._behaviour.columns(rows, latest), catalogue.traits.affinity(rows, latest)
        together, popular = counted[:, 2].copy(), counted[:, 0].copy()
        share = self._neighbours.scores(np.array(recent, np.int64), max(catalogue.size, self._neighbours.products))
        share /= max(float(share.sum()), 1e-9)
        near = share[rows]
        for place, alike in self._alike(rows).items():
            known = self._behaviour.columns(alike, latest)
            together[place], popular[place] = known[:, 2].mean(), known[:, 0].mean()
            near[place] = share[alike].mean()
        expected = np.zeros(len(rows), np.float32)
        if user is not None and self._expected is not None:
            expected = self._expected.scores(user, rows)
        columns = (
            expected,
            vectors @ self.content(recent),
            together,
            np.log(near + LEAST),
            popular,
            affinity[:, 0],
            affinity[:, 1],
        )
        return np.stack(columns, 1, dtype=np.float32)

    def _offer(self, wish: Wish, near: np.ndarray, count: int) -> Offer:
        catalogue, allowed = self._retriever.catalogue, self._retriever.allowed(wish.filter)
        allowed = np.array(catalogue.filters.present if allowed is None else allowed, bool)
        allowed[np.asarray(wish.exclude, np.int64)] = False
        more = [self._neighbours.best(np.array(wish.recent, np.int64), NEIGHBOURS), self._popular]
        rows = [near, *(part[allowed[part]] for part in more)]
        if wish.user is not None and self._expected is not None:
            rows.append(self._expected.best(wish.user, allowed, count))
        found = np.unique(np.concatenate(rows))
        return Offer(found, self.parts(found, wish.recent, wish.user))

    def _alike(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        """Place of each row that nobody has turned to → the nearest rows that somebody has turned to."""
        if not len(self._popular):
            return {}
        unseen = np.flatnonzero(self._behaviour.unseen(rows)).tolist()
        vectors = np.asarray(self._retriever.catalogue.vectors[rows[unseen]], np.float32)
        told = {place: (int(rows[place]), vector.tobytes()) for place, vector in zip(unseen, vectors, strict=True)}
        new = [i for i, place in enumerate(unseen) if told[place] not in self._known_alike]
        if new:
            found, _ = self._retriever.catalogue.vector_index.search(vectors[new], SEARCHED, None)
            for i, near in zip(new, found, strict=True):
                near = near[near >= 0]
                self._known_alike[told[unseen[i]]] = near[~self._behaviour.unseen(near)][:ALIKE]
            while len(self._known_alike) > KEPT:
                self._known_alike.pop(next(iter(self._known_alike)))
        return {place: alike for place in told if len(alike := self._known_alike.get(told[place], _NONE))}

    def content(self, recent: Sequence[int]) -> np.ndarray:
        """float32 [E]: the latest turns' vectors, the last one counting most, as one unit vector."""
        latest = np.array(recent[-LATEST:], np.int64)
        fade = FADE ** np.arange(len(latest))[::-1]
        mean = (np.asarray(self._retriever.catalogue.vectors[latest], np.float32) * fade[:, None]).sum(0)
        return (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
