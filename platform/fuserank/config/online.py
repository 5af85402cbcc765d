"""A policy that orders live answers (`policy.online`)."""

from typing import Annotated, Literal

from pydantic import Field

from fuserank.config.section import Fraction, Positive, Section, Weight

PolicyKind = Literal["epsilon_greedy", "linucb", "thompson"]
Scenario = Literal["recommend", "search"]


class Online(Section):
    """Which answers a policy orders, and how it explores; it learns from them within seconds."""

    kind: PolicyKind = "linucb"
    scenarios: list[Scenario] = ["recommend"]
    candidates: Positive = 50  # of a recommendation, the best by the model: what slates are drawn from
    fresh: Annotated[int, Field(ge=0)] = 5  # of these, products that nobody has turned to yet
    shown: Annotated[int, Field(ge=0)] = 50  # answers to a user, the latest, that their liking is learnt from; 0: none
    prior: Weight = 0.05  # reward that a standard deviation of the model's score is worth before anything is learnt
    looked_at: list[Fraction] = []  # chance that each place is looked at, first place first; none: all alike
    shares: dict[Scenario, Fraction] = {}  # of scenarios whose random share is not policy.share
    daily: Weight | None = None  # random slates expected of a scenario in a day, at each gateway; null: no limit
    frozen: bool = False  # no exploration, unless switched otherwise while the service runs
