"""One request on its way through the chain: what it still needs, until when it can wait for that, what became of it.

Times are seconds since the epoch. Reads and writes nothing.
"""

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fuserank.retrieval import policy_inputs
from fuserank.retrieval.arrange import grouped
from fuserank.retrieval.rerank_inputs import placed
from serve import budget
from serve.budget import HISTORY, RERANK, RETRIEVE
from serve.envelope import EXPIRED, Envelope, Failure, Result
from serve.messages import Ask, Choice, Found, Past, Ranked, RetrieverQuery, Slate

ORDER = ("reranker", "image", "audio", "text", "history")  # as an answer names what was left out

Order = tuple[np.ndarray, np.ndarray]
"""Indices of all candidates, best first, and the final score of each candidate."""


class Way:
    """One envelope of a batch."""

    def __init__(self, envelope: Envelope, waiting: "asyncio.Future[Result]", expected: Mapping[str, float]):
        """
        Args:
            waiting: what the sender waits for.
            expected: seconds that each stage should take.
        """
        self.envelope, self.ask = envelope, envelope.payload
        self._waiting, self._expected = waiting, expected
        self._began = self._encoded = self._retrieved = self._ordered = time.time()
        left = envelope.deadline - self._began
        self.last = envelope.deadline - budget.reserve(left, expected)  # when the answer has to be ready
        self.cut = self.last - budget.retrieving(left, expected)  # when the retriever has to be called
        self.plan = budget.fitting(self.ask, self.last - self._began, expected)
        self.hasty = False  # does not wait for what only its neighbours need
        self.inside = True  # has not left for the retriever
        self._vectors: dict[str, np.ndarray] = {}
        self._past = Past()
        self._found: Found | None = None
        self._order: Order | None = None
        self._result: Result | None = None

    def alive(self) -> bool:
        """Whether it goes on: it has no result, somebody waits for one, and the deadline has not passed."""
        if self._result is None and self.envelope.deadline <= time.time():
            self.end(EXPIRED)
        return self.waited_for()

    def waited_for(self) -> bool:
        """Whether it has no result and somebody waits for one."""
        return self._result is None and not self._waiting.done()

    def end(self, failure: Failure) -> None:
        """It failed."""
        self._set(Result(self.envelope.request_id, error=failure))

    def result(self) -> Result:
        """What became of it."""
        return self._result or Result(self.envelope.request_id, error=EXPIRED)

    def hurry(self, stages: Sequence[str]) -> None:
        """It may not have the time that its whole batch needs for these stages at once."""
        first = max((self._expected[stage] for stage in stages), default=0.0)
        self.hasty = self._began + first + self._rest() > self.last

    def leaves(self, done: Mapping[str, bool]) -> bool:
        """Whether it leaves for the retriever now; what has not been encoded when it is time is left out.

        Args:
            done: stages that the batch waits for → whether each has ended.
        """
        missing = frozenset(part for part in self.plan.needs if not done[part])
        late = frozenset(part for part, ended in done.items() if not ended)  # of it, or of a neighbour
        if late == {HISTORY} and self._began + self.ask.patience <= time.time():
            self.cut = time.time()
        if not missing:
            return self.hasty or all(done.values()) or self.cut <= time.time()
        if self.cut > time.time():
            return False
        plan = budget.without(self.ask, self.plan, missing)
        if plan is None:  # nothing to search by: all it can do is wait
            self.cut = self.envelope.deadline
            return False
        self.plan = plan
        return True

    def moment(self) -> float:
        """When, if no stage ends before, it is to be asked again whether it leaves."""
        patient = self._began + self.ask.patience
        return min(patient, self.cut) if patient > time.time() else self.cut

    def reranked_by(self) -> float:
        """Until when the reranker is waited for."""
        return min(self.last, self._retrieved + self.ask.patience)

    def query(self, results: Mapping[str, Result]) -> RetrieverQuery | None:
        """What goes to the retriever; None: it has failed.

        Args:
            results: of each stage that it needed.
        """
        self._encoded = time.time()
        for part in sorted(self.plan.needs):
            result = results[part]
            if part == HISTORY:
                self._past = result.value or Past()
                if result.error is not None:
                    self._leave_out(HISTORY)
            elif result.error is not None:
                self.end(result.error)
                return None
            else:
                self._vectors[part] = result.value
        if not self._vectors and self.ask.media:  # words alone are not what it learnt to rerank
            self.drop_reranking()
        self._drop_late_reranking()
        ask = dataclasses.replace(self.ask, media={}, rerank=self.plan.rerank)
        return RetrieverQuery(ask, self.ask.media.get("text"), self._vectors, self._past)

    def candidates(self, found: Found) -> Any:
        """Takes what was found; what goes to the reranker, None for nothing."""
        self._retrieved, self._found = time.time(), found
        if found.features is None or not len(found.rows):
            return None
        self._drop_late_reranking()
        return found.features if self.plan.rerank else None

    def order(self, scores: np.ndarray | None) -> None:
        """Its scores are final.

        Args:
            scores: the reranker's, float32 [≤ K]; None: the candidates stay as they were found.
        """
        assert self._found is not None
        self._ordered, self._order = time.time(), order(self._found, scores)

    def offered(self) -> tuple[np.ndarray, Choice] | None:
        """What a policy may choose from, once `order` is known: indices into the candidates, and what it is told."""
        assert self._found is not None
        assert self._order is not None
        return offered(self.ask, self._found, self._order)

    def answer(self, slate: Slate | None) -> None:
        """It has its answer; slate: what a policy chose, None for the model's own order."""
        assert self._found is not None
        assert self._order is not None
        stages = {
            "encode": _ms(self._began, self._encoded),
            "retrieve": _ms(self._encoded, self._retrieved),
            "rerank": _ms(self._retrieved, self._ordered),
        }
        if slate is not None:
            stages["policy"] = _ms(self._ordered, time.time())
        ranked = dataclasses.replace(
            _rank(self.ask, self._found, self._order, slate, stages),
            left_out=tuple(sorted(self.plan.left_out, key=ORDER.index)),
        )
        self._set(Result(self.envelope.request_id, ranked))

    def drop_reranking(self) -> None:
        """The reranker is left out."""
        if self.plan.rerank:
            self.plan = dataclasses.replace(self.plan, rerank=False)
            self._leave_out("reranker")

    def _drop_late_reranking(self) -> None:
        """Unless there is time for all that is to come."""
        if time.time() + self._rest() > self.last:
            self.drop_reranking()

    def _rest(self) -> float:
        """Seconds that the stages after the first should take."""
        retrieve = self._expected[RETRIEVE] if self._found is None else 0.0
        return retrieve + (self._expected[RERANK] if self.plan.rerank else 0.0)

    def _leave_out(self, part: str) -> None:
        self.plan = dataclasses.replace(self.plan, left_out=(*self.plan.left_out, part))

    def _set(self, result: Result) -> None:
        self._result = result
        if not self._waiting.done():
            self._waiting.set_result(result)


def order(found: Found, scores: np.ndarray | None) -> Order:
    """The model's own order of all candidates, and their final scores."""
    final = found.score if scores is None else placed(found.score, scores)
    return np.arange(len(final)) if found.ordered else np.argsort(-final, kind="stable"), final


def offered(ask: Ask, found: Found, ranked: Order) -> tuple[np.ndarray, Choice] | None:
    """What a policy may choose from for one request: indices into the candidates, and what it is told of them."""
    if not ask.pool:
        return None
    best, final = ranked
    pool, told = best[ask.first : ask.first + ask.pool], found.told
    if ask.kind == "search" and found.features is not None:
        seen = found.features if isinstance(found.features, np.ndarray) else found.features.features
        told = policy_inputs.searched(seen, found.modalities)
    if told is None or not len(pool) or pool.max() >= len(told):  # of those below the reranker's depth nothing is told
        return None
    features = policy_inputs.complete(final[pool], told[pool])
    names = policy_inputs.names(ask.kind, found.modalities)
    return pool, Choice(ask.kind, names, features, ask.depth - ask.first, ask.user_id or ask.session_id, ask.explain)


def _rank(ask: Ask, found: Found, ranked: Order, slate: Slate | None, stages: dict[str, float]) -> Ranked:
    best, final = ranked
    if slate is not None:
        best = np.concatenate([best[: ask.first], slate.pool[slate.chosen.rows]])
    if found.groups is None:
        best = best[: ask.depth]
        return Ranked(found, best, final[best], stages, slate=slate)
    groups = grouped(best, found.groups)
    best = np.array([members[0] for members in groups[: ask.depth]], np.int64)
    return Ranked(found, best, final[best], stages, groups[: ask.depth], len(groups))


def _ms(begin: float, end: float) -> float:
    return round(1000 * (end - begin), 2)
