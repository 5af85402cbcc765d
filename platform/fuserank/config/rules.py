"""A shop's own say in what is recommended (`serve.rules`), in the order in which it acts."""

from typing import Annotated, Any

from pydantic import AfterValidator

from fuserank.config.section import Fraction, Positive, Section


def _field(name: str) -> str:
    if name not in ("brand", "parent_id") and not name.startswith("attributes."):
        raise ValueError("is nothing to count products by; use brand, parent_id or attributes.NAME")
    return name


class Boost(Section):
    """Products to raise, or to bury with a number below 0."""

    filter: dict[str, Any]  # as of a search: {brand: Acme}, {price: {lte: 20}} …
    by: float = 1.0  # spreads (standard deviations) of the candidates' own scores


class Pin(Section):
    """A product that stands at a place of every recommendation, while it may be shown there."""

    product_id: str
    place: Positive = 1


class Rules(Section):
    """Recommendations alone: what a search finds, its filter and its words decide."""

    boost: list[Boost] = []
    caps: dict[Annotated[str, AfterValidator(_field)], Positive] = {}  # field: most products of one value in an answer
    diversity: Fraction = 0.0  # how much unlikeness to what stands above counts against the score (MMR's 1 − lambda)
    pins: list[Pin] = []
