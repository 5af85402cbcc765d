"""What a request leaves out to be answered by its deadline, by how long each stage took lately. Pure.

First the reranker is left out, then what is slowest to encode, as long as a part of the query remains that counts.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serve.messages import PATIENCE_SECONDS, QUERIES, Ask

HISTORY, RETRIEVE, RERANK, RENDER, LOG = "history", "retrieve", "rerank", "render", "log"
NEEDED = {RETRIEVE, RENDER, LOG}  # what no answer does without
RESERVE_SECONDS = 0.03  # kept for the way back to the sender, if it is not a large part of the time left
RESERVE_LEAST, RESERVE_MOST = 0.05, 0.25  # of the time left: who can wait long has no need to cut it fine
UNKNOWN_SHARE = 0.25  # of the time left, kept for a retriever that nobody has asked yet


class StageTimes:
    """Seconds that calls of each stage took lately, whole batches as they come; one for each gateway replica."""

    def __init__(
        self,
        kept: int = 100,
        seconds: float = 10.0,
        share: float = 0.9,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            kept: calls remembered, of each stage.
            seconds: for how long those that can be left out are: what everybody leaves out is tried again then.
            share: of the calls that end within what is expected.
        """
        self._seconds, self._share, self._clock = seconds, share, clock
        self._calls: dict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=kept))

    def record(self, stage: str, seconds: float) -> None:
        """A call of the stage took so long, or has taken so long already."""
        self._calls[stage].append((self._clock(), seconds))

    def expect(self, stage: str) -> float:
        """Seconds within which `share` of the recent calls ended (the nearest rank); 0 if none is remembered. What
        can be left out and has just not come is expected to take as long again: its deployment may be gone."""
        calls, oldest = self._calls[stage], self._clock() - self._seconds
        while calls and calls[0][0] < oldest and stage not in NEEDED:
            calls.popleft()
        if not calls:
            return 0.0
        ordered = sorted(took for _, took in calls)
        usual = ordered[min(len(ordered) - 1, int(self._share * len(ordered)))]
        return max(usual, calls[-1][1]) if calls[-1][1] >= PATIENCE_SECONDS and stage not in NEEDED else usual


@dataclass(frozen=True)
class Plan:
    """What is done for one request."""

    needs: frozenset[str]  # modalities to encode, and HISTORY
    rerank: bool
    left_out: tuple[str, ...] = ()  # as an answer's `degraded` names it


def whole(ask: Ask) -> Plan:
    """All that the request can have."""
    past = {HISTORY} if ask.kind != "similar" and ask.user_id else set()
    return Plan(frozenset(ask.media) | past, ask.kind in ("search", "rank") and not ask.sort)


def counts(ask: Ask, encoded: frozenset[str]) -> bool:
    """Whether something to search by remains of the request if only these modalities are encoded: one that has a
    weight, or the words."""
    weighed = [modality for modality in ask.media if ask.weights.get(modality, 1.0) > 0]
    return "text" in weighed or any(modality in encoded for modality in weighed) or ask.kind not in QUERIES


def without(ask: Ask, plan: Plan, missing: frozenset[str]) -> Plan | None:
    """The plan without what is missing; None if nothing remains to answer with."""
    needs = plan.needs - missing
    if ask.kind == "embed" or not counts(ask, needs):  # half a query's vector is another query's
        return None
    return Plan(needs, plan.rerank, (*plan.left_out, *sorted(plan.needs & missing)))


def fitting(ask: Ask, seconds: float, expected: Mapping[str, float]) -> Plan:
    """The plan that leaves out least of those that should be done within `seconds`; if none should, the shortest.

    Args:
        expected: seconds of each stage.
    """
    plan = whole(ask)
    if plan.rerank and expected.get(RERANK, 0.0) >= ask.patience:
        plan = Plan(plan.needs - {HISTORY}, False, ("reranker",))
    elif HISTORY in plan.needs and expected.get(HISTORY, 0.0) >= ask.patience:
        plan = Plan(plan.needs - {HISTORY}, plan.rerank, (HISTORY,))
    while not _fits(plan, seconds, expected):
        if plan.rerank:  # what is known of the user is read for the reranker alone
            plan = Plan(plan.needs - {HISTORY}, False, ("reranker",))
            continue
        slowest = sorted(plan.needs, key=lambda part: (-expected.get(part, 0.0), part == "text", part))
        shorter = [less for part in slowest if (less := without(ask, plan, frozenset({part})))]
        if not shorter:
            break
        plan = shorter[0]
    return plan


def reserve(left: float, expected: Mapping[str, float]) -> float:
    """Seconds of those left that the answer needs after the last stage."""
    left = max(left, 0.0)
    needed = max(RESERVE_SECONDS, expected.get(RENDER, 0.0) + expected.get(LOG, 0.0), RESERVE_LEAST * left)
    return min(needed, RESERVE_MOST * left)


def retrieving(left: float, expected: Mapping[str, float]) -> float:
    """Seconds of those left that the retriever needs."""
    return expected[RETRIEVE] or UNKNOWN_SHARE * max(left, 0.0)


def _fits(plan: Plan, seconds: float, expected: Mapping[str, float]) -> bool:
    first = max((expected.get(part, 0.0) for part in plan.needs), default=0.0)
    return first + expected.get(RETRIEVE, 0.0) + (expected.get(RERANK, 0.0) if plan.rerank else 0.0) <= seconds
