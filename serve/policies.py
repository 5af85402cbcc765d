"""The last stage of the chain: a policy draws each answer's slate from its candidates, with the chance it had.

Runs in a thread of each gateway's own (numpy, a fraction of a millisecond an answer), so that it costs no hop. What has
been learnt is read from the store, where one learner writes it (serve/learning.py): a gateway knows a new state, a
switch of the policy or a freeze of exploration within POLL_SECONDS, every gateway the same.

While a canary runs, two kinds of policy answer, over the same state. A visitor is on one side from its beginning to its
end, by a hash; a propensity is the chance that the policy of that side had, which the answer's policy@version names.
"""

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from fuserank import config
from fuserank.errors import PolicyError
from fuserank.feedback.policies.base import SlatePolicy
from fuserank.feedback.policies.build import configured
from fuserank.feedback.policies.exploration import Exploration
from fuserank.feedback.policies.slates import NONE
from fuserank.feedback.policies.state import LinearState
from fuserank.store.canaries import Canary
from fuserank.store.database import Database
from fuserank.store.policies import ALL, PolicyState, Switch, kinds
from serve import metrics
from serve.clicks import ClickModels
from serve.envelope import ANY, Envelope, Result, answer
from serve.held import follow
from serve.messages import Choice, Chosen

log = logging.getLogger("fuserank.serve")
POLL_SECONDS = 0.25
DAY_SECONDS = 86_400


class Followed:
    """The policies as the store has them."""

    def __init__(self, database: Database, settings: config.Policy, poll_seconds: float = POLL_SECONDS):
        """
        Args:
            settings: with `online`.

        Raises:
            StoreError: the database failed.
        """
        assert settings.online is not None
        self._database, self._settings, self._online = database, settings, settings.online
        self._states: dict[tuple[str, str], PolicyState] = {}
        self._switches: dict[str, Switch] = {}
        self._made: dict[tuple[str, tuple[str, ...], str], tuple[object, SlatePolicy]] = {}
        self._stopped = threading.Event()
        self.look()
        options = {"idle": poll_seconds, "what": "policies"}
        self._thread = threading.Thread(
            target=follow, args=(self.look, self._stopped), kwargs=options, name="policies", daemon=True
        )
        self._thread.start()

    def look(self) -> bool:
        """Read what has changed. Raises StoreError."""
        heads, self._switches = self._database.policy_heads()
        if heads != {key: state.revision for key, state in self._states.items()}:
            self._states = {(state.scenario, state.features): state for state in self._database.policy_states()}
        return False

    def frozen(self, scenario: str) -> bool:
        """Whether exploration is off."""
        told = [self._switches[name].frozen for name in (scenario, ALL) if name in self._switches]
        return next((frozen for frozen in told if frozen is not None), self._online.frozen)

    def kind(self, scenario: str, visitor: str) -> str:
        """The kind of policy that answers this visitor now."""
        kind, canary = kinds(self._switches, scenario, self._online.kind)
        return canary.kind if canary is not None and in_canary(canary, visitor) else kind

    def policy(self, scenario: str, names: tuple[str, ...], kind: str | None = None) -> SlatePolicy:
        """The policy that answers now. One thread at a time.

        Args:
            kind: which one; None: the one that answers without a canary.

        Raises:
            PolicyError: what the store holds is no state.
        """
        empty = LinearState(names)
        stored, frozen = self._states.get((scenario, empty.key)), self.frozen(scenario)
        kind = kind or kinds(self._switches, scenario, self._online.kind)[0]
        known = (stored and stored.revision, frozen)
        made = self._made.get((scenario, names, kind))
        if made is None or made[0] != known:
            state = LinearState.from_dict(json.loads(stored.state)) if stored else empty
            prior = {"score": self._online.prior}
            made = (known, configured(kind, state, self._settings, frozen=frozen, prior=prior))
            self._made[scenario, names, kind] = made
        return made[1]

    def close(self) -> None:
        """Follow no longer."""
        self._stopped.set()
        self._thread.join()


class PolicyStage:
    """Called by the chain like a deployment: envelopes of Choice → results of Chosen."""

    def __init__(self, followed: Followed, settings: config.Policy, clicks: ClickModels):
        """
        Args:
            settings: with `online`. clicks: what `explain` tells by.
        """
        assert settings.online is not None
        self._followed, self.online, self._clicks = followed, settings.online, clicks
        shares = {str(scenario): share for scenario, share in settings.online.shares.items()}
        self._exploration = Exploration(settings.share, shares, settings.online.daily)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        """One result an envelope."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, envelopes)

    def close(self) -> None:
        """Follow no longer."""
        self._followed.close()
        self._thread.shutdown()

    def _answer(self, envelopes: list[Envelope]) -> list[Result]:
        seeded = [(envelope.request_id, envelope.payload) for envelope in envelopes]
        named = [
            Envelope(envelope.request_id, envelope.generation, envelope.deadline, payload)
            for envelope, payload in zip(envelopes, seeded, strict=True)
        ]
        return answer(named, ANY, self._choose)

    def _choose(self, payloads: Sequence[tuple[str, Choice]]) -> list[Chosen]:
        groups: dict[tuple, list[int]] = {}
        for i, (request, choice) in enumerate(payloads):
            kind = self._followed.kind(choice.scenario, choice.visitor or request)
            groups.setdefault((choice.scenario, choice.names, choice.size, kind), []).append(i)
        found: dict[int, Chosen] = {}
        for (scenario, names, size, kind), members in groups.items():
            policy = self._followed.policy(scenario, names, kind)
            share = self._shares(scenario, len(members), policy.frozen)
            seeds = np.array([_hash(payloads[i][0]) >> 1 for i in members])  # int64
            chosen = _draw(policy, [payloads[i][1] for i in members], seeds, size, share)
            found.update((i, self._explained(payloads[i][1], one)) for i, one in zip(members, chosen, strict=True))
            for one in chosen:
                metrics.record("fuserank_slates_total", scenario=scenario, drawn="random" if one.explored else "policy")
        return [found[i] for i in range(len(payloads))]

    def _explained(self, choice: Choice, chosen: Chosen) -> Chosen:
        return replace(chosen, chances=self._clicks.chances(choice, chosen.rows)) if choice.explain else chosen

    def _shares(self, scenario: str, count: int, frozen: bool) -> np.ndarray:
        if frozen:
            return np.zeros(count)
        return self._exploration.shares([scenario] * count, int(time.time() // DAY_SECONDS))


def _draw(
    policy: SlatePolicy, choices: Sequence[Choice], seeds: np.ndarray, size: int, share: np.ndarray
) -> list[Chosen]:
    widest = max(len(choice.features) for choice in choices)
    features = np.zeros((len(choices), widest, len(choices[0].names)))
    mask = np.zeros((len(choices), widest), bool)
    for i, choice in enumerate(choices):
        if not len(choice.features):
            raise PolicyError("an answer without candidates needs no policy.")
        features[i, : len(choice.features)], mask[i, : len(choice.features)] = choice.features, True
    slates = policy.choose(features, seeds, size, mask, share)
    found = []
    for i in range(len(choices)):
        filled = slates.rows[i] != NONE
        found.append(
            Chosen(
                slates.rows[i][filled],
                slates.propensities[i][filled],
                float(slates.slate_propensity[i]),
                slates.errors[i][filled],
                float(slates.slate_error[i]),
                policy.name,
                bool(slates.explored[i]),
            )
        )
    return found


def in_canary(canary: Canary, visitor: str) -> bool:
    """Whether a canary's policy answers this visitor: the same on any replica; another share in another canary."""
    return _hash(f"{canary.scenario} {canary.kind} {canary.since} {visitor}") < canary.share * 2**64


def _hash(text: str) -> int:
    """The same for the same text, on any replica; below 2⁶⁴."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")
