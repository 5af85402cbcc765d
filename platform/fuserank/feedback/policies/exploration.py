"""How much of each scenario's answers may be drawn at random, how much of that is left today, and the switch.

Which share an answer was given under is part of its propensities, so shares follow from how many answers were given,
never from what was drawn: an answer at share ε spends ε of its scenario's budget, whether it explored or not.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fuserank.errors import PolicyError


class Exploration:
    """Shares and budgets by scenario. One for each replica: a budget is of a replica, as rate limits are."""

    def __init__(self, share: float, scenarios: Mapping[str, float] | None = None, daily: float | None = None):
        """
        Args:
            share: of scenarios that are not named; scenarios: name → share of its own, 0 for none.
            daily: random slates expected of one scenario in a day, at most; None: no limit.

        Raises:
            PolicyError: a share outside 0 … 1 or a negative budget.
        """
        self.share, self.scenarios = share, dict(scenarios or {})
        self.daily = math.inf if daily is None else daily
        self._spent: dict[tuple[int, str], float] = {}
        if not all(0 <= value <= 1 for value in (share, *self.scenarios.values())) or self.daily < 0:
            raise PolicyError(f"shares must lie between 0 and 1, a budget not below 0: {share}, {scenarios}, {daily}.")

    def shares(self, scenarios: Sequence[str | None], day: int) -> np.ndarray:
        """The share of each of these answers, counted as given. [B] → [B].

        Args:
            day: any number that a new day changes, e.g. of days since 1970; earlier days are forgotten.
        """
        self._spent = {key: value for key, value in self._spent.items() if key[0] == day}
        found = np.empty(len(scenarios))
        for place, scenario in enumerate(scenarios):
            key = (day, scenario or "")
            wanted = self.scenarios.get(scenario or "", self.share)
            spent = self._spent.get(key, 0.0)
            found[place] = wanted if spent + wanted <= self.daily else 0.0
            self._spent[key] = spent + found[place]
        return found

    def spent(self, scenario: str | None, day: int) -> float:
        """Random slates expected so far."""
        return self._spent.get((day, scenario or ""), 0.0)
