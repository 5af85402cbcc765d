"""Whether a candidate's answers earn more or less than an incumbent's, asked again and again while they come in.

    comparison = Comparison(last=20_000)
    comparison.incumbent("user ann", 0.1)
    look = comparison.candidate("user bob", 0.0)     # a Look at 100, 200, 400 … and 20,000 answers of the candidate

**Looks.** Whoever looks at an ordinary interval after every answer finds a difference some day where there is none. So
there are K = 1 + ⌈log₂(last / first)⌉ looks and no more, at numbers of answers that are known beforehand and do not
depend on what the answers earned, each with the K-th part of the permitted error (Bonferroni's inequality): the chance
that any of them is wrong is at most that error, however the looks hang together. Doubling numbers and equal shares are
those of group-sequential trials (Pocock 1977, Biometrika 64), with Bonferroni's bound in place of his constants, which
is on the safe side. Nothing depends on when somebody asks: the same answers in the same order give the same looks.

**Interval.** A visitor stays with one side, so visitors are what is drawn, and the mean over answers is a ratio of two
sums over visitors; its variance is that of the delta method (Deng, Knoblich, Lu 2018,
https://arxiv.org/abs/1803.06336), its point that of Student's t with one degree less than visitors on the smaller side.
Where rewards are rare a side without any has no spread at all; so a side's variance is never taken as less than what
both sides together give it.
"""

from dataclasses import asdict, dataclass

import numpy as np

from fuserank.errors import PolicyError
from fuserank.evaluation.intervals import FEW, student_point

FIRST = 100  # answers of the candidate at the first look


@dataclass(frozen=True)
class Look:
    """How both sides stood at one number of the candidate's answers. Values are rewards a position."""

    answers: int  # of the candidate
    incumbent_answers: int
    visitors: int
    incumbent_visitors: int
    mean: float
    incumbent_mean: float
    low: float | None  # of the difference of the means; None: fewer than 10 visitors on a side
    high: float | None
    last: bool  # there is none after it

    @property
    def difference(self) -> float:
        return self.mean - self.incumbent_mean

    def worse(self, by: float = 0.0) -> bool:
        """The candidate earns less by more than this: proven."""
        return self.high is not None and self.high < -by

    def better(self, by: float = 0.0) -> bool:
        """The candidate earns more by more than this: proven."""
        return self.low is not None and self.low > by

    def as_dict(self) -> dict[str, float | int | bool | None]:
        """For JSON."""
        return {**asdict(self), "difference": self.difference}


class Side:
    """What one side's answers earned, by visitor."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}  # visitor → [answers, what they earned]
        self.answers, self.earned = 0, 0.0

    def add(self, visitor: str, value: float) -> None:
        """One answer."""
        sums = self._sums.setdefault(visitor, [0, 0.0])
        sums[0] += 1
        sums[1] += value
        self.answers += 1
        self.earned += value

    @property
    def visitors(self) -> int:
        return len(self._sums)

    @property
    def mean(self) -> float:
        """A position; 0 without answers."""
        return self.earned / max(self.answers, 1)

    def squares(self, mean: float) -> float:
        """Σ over visitors of (what they earned − mean · their answers)²."""
        counts, sums = np.array(list(self._sums.values())).T
        return float(((sums - mean * counts) ** 2).sum())


class Comparison:
    """Takes answers of both sides as they come, and looks when it is time."""

    def __init__(self, last: int, level: float = 0.95, tests: int = 1, first: int = FIRST):
        """
        Args:
            last: the candidate's answers after which it is over.
            level: 1 − the chance of any wrong interval in all looks; tests: comparisons that share that chance.

        Raises:
            PolicyError: numbers that make no sense.
        """
        if not 2 <= first <= last or not 0 < level < 1 or tests < 1:
            raise PolicyError(
                f"a comparison needs 2 ≤ first ≤ last and 0 < level < 1, got {first}, {last} and {level}."
            )
        sizes = [first]
        while sizes[-1] < last:
            sizes.append(min(2 * sizes[-1], last))
        self._sizes, self._last = frozenset(sizes), last
        self._tail = 1 - (1 - level) / (2 * tests * len(sizes))
        self.candidates, self.incumbents = Side(), Side()
        self.latest: Look | None = None

    @property
    def looks(self) -> int:
        """K."""
        return len(self._sizes)

    def incumbent(self, visitor: str, value: float) -> None:
        """One answer of the incumbent."""
        self.incumbents.add(visitor, value)

    def candidate(self, visitor: str, value: float) -> Look | None:
        """One answer of the candidate; a look where it is time for one. Those beyond the last are not counted."""
        if self.candidates.answers >= self._last:
            return None
        self.candidates.add(visitor, value)
        if self.candidates.answers not in self._sizes:
            return None
        self.latest = self._look()
        return self.latest

    def _look(self) -> Look:
        new, old = self.candidates, self.incumbents
        half, fewest = None, min(new.visitors, old.visitors)
        if fewest >= FEW:
            both = (new.earned + old.earned) / (new.answers + old.answers)
            pooled = (new.squares(both) + old.squares(both)) / (new.answers + old.answers)
            variance = 0.0
            for side in (new, old):
                own = side.visitors / (side.visitors - 1) * side.squares(side.mean) / side.answers
                variance += max(own, pooled) / side.answers
            half = student_point(self._tail, fewest - 1) * float(np.sqrt(variance))
        difference = new.mean - old.mean
        return Look(
            new.answers, old.answers, new.visitors, old.visitors, new.mean, old.mean,
            None if half is None else difference - half, None if half is None else difference + half,
            new.answers == self._last,
        )  # fmt: skip
