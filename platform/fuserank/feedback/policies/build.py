"""A policy by its name in the config."""

from typing import Any, Literal

from fuserank.config import Policy
from fuserank.errors import PolicyError
from fuserank.feedback.policies.base import SlatePolicy
from fuserank.feedback.policies.epsilon_greedy import EpsilonGreedy
from fuserank.feedback.policies.linucb import LinUCB
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.policies.thompson import Thompson

PolicyKind = Literal["epsilon_greedy", "linucb", "thompson"]
POLICIES: dict[str, type[SlatePolicy]] = {kind.kind: kind for kind in (EpsilonGreedy, LinUCB, Thompson)}


def build_policy(kind: str, state: LinearState, **settings: Any) -> SlatePolicy:
    """The policy of that name.

    Args:
        settings: as its constructor.

    Raises:
        PolicyError: no such policy, or settings it does not know.
    """
    if kind not in POLICIES:
        raise PolicyError(f"there is no policy {kind!r}.", f"Choose one of {', '.join(POLICIES)}.")
    try:
        return POLICIES[kind](state, **settings)
    except TypeError as error:
        raise PolicyError(f"policy {kind}: {error}.") from None


def configured(kind: str, state: LinearState, settings: Policy, **more: Any) -> SlatePolicy:
    """The policy of that name with the config's numbers; `more` of its constructor's settings."""
    own = {"linucb": {"alpha": settings.alpha}, "thompson": {"noise": settings.noise, "samples": settings.samples}}
    return build_policy(kind, state, share=settings.share, ridge=settings.ridge, **own.get(kind, {}), **more)
