"""What live policies learn: answers and their rewards → states in the store. Reads and writes the store.

One learner at a time; a second one, as during a redeploy, finds that its states are no longer the newest and begins
its pass anew. An answer counts when it is stored, with what it has earned by then; what it earns later is added then,
so a state is the same whatever the order in which answers and events arrived.
"""

import json
import logging
from collections.abc import Sequence

import numpy as np

from fuserank.errors import PolicyError, StoreError
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.slate_log import decode_features
from fuserank.store.database import Database
from fuserank.store.policies import LoggedSlate, PolicyState
from fuserank.store.validate import REWARDS

log = logging.getLogger("fuserank.feedback")


class Learner:
    """Keeps the states of all scenarios up to date."""

    def __init__(self, database: Database, reward: str, looked_at: Sequence[float] = ()):
        """
        Args:
            reward: `clicked` or `purchased`, what a shown product earns.
            looked_at: chance that each place is looked at, the first place first, later places as the last one named;
                none: all places alike.
        """
        self._database, self._reward = database, REWARDS[reward]
        self._looked_at = np.array(looked_at or [1.0], np.float64)
        self._states: dict[tuple[str, str], tuple[int, LinearState]] | None = None

    def learn(self, limit: int = 200) -> int:
        """One pass over at most `limit` answers and the events that waited; how many of both it is done with.

        Raises:
            StoreError: the database failed, or another learner was quicker; nothing was learnt.
        """
        waiting = self._database.unlearnt(self._reward, limit)
        if not waiting:
            return 0
        states = self._known()
        changed: dict[tuple[str, str], LinearState] = {}
        for answer in waiting.answers:
            rewarded = {product for request, product in waiting.rewarded if request == answer.request_id}
            self._count(answer, rewarded, states, changed, late=False)
        for answer, products in waiting.late.values():
            self._count(answer, products, states, changed, late=True)
        rows = [
            PolicyState(*key, states.get(key, (0, state))[0] + 1, json.dumps(state.as_dict(), separators=(",", ":")))
            for key, state in changed.items()
        ]
        try:
            self._database.write_policies(rows, waiting)
        except StoreError:
            self._states = None
            raise
        states.update(
            {(row.scenario, row.features): (row.revision, changed[row.scenario, row.features]) for row in rows}
        )
        return len(waiting.answers) + len(waiting.events)

    def _known(self) -> dict[tuple[str, str], tuple[int, LinearState]]:
        if self._states is None:
            self._states = {
                (row.scenario, row.features): (row.revision, LinearState.from_dict(json.loads(row.state)))
                for row in self._database.policy_states()
            }
        return self._states

    def _count(
        self,
        answer: LoggedSlate,
        rewarded: set[str],
        states: dict[tuple[str, str], tuple[int, LinearState]],
        changed: dict[tuple[str, str], LinearState],
        late: bool,
    ) -> None:
        try:
            names, values = decode_features(answer.features, len(answer.candidate_ids))
            place = {product: row for row, product in enumerate(answer.candidate_ids)}
            shown = [product for product in answer.product_ids if product in place]
            positions = np.array([answer.product_ids.index(product) for product in shown], np.int64)
            features = values[[place[product] for product in shown]]
            rewards = np.array([float(product in rewarded) for product in shown])
            new = LinearState(names)
            key = (answer.kind, new.key)
            state = changed.get(key) or (states[key][1].copy() if key in states else new)
            examination = self._looked_at[np.minimum(positions, len(self._looked_at) - 1)]
            if late:
                there = rewards > 0
                if not there.any():
                    return
                state.reward_late(features[there], rewards[there], examination[there])
            else:
                state.observe(features, rewards, examination)
        except PolicyError as error:
            log.warning("an answer of scenario %s teaches nothing: %s", answer.kind, error.message)
            return
        changed[key] = state
