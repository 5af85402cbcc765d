"""The HTTP contract of what a search may ask beyond its hits – facets, order, groups, marks – and of suggestions; the
rest of it is in api.py."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

SortField = Literal["relevance", "price", "rating", "review_count", "updated_at"]
Order = Literal["asc", "desc"]
FacetName = Annotated[str, Field(min_length=1, max_length=300)]
Facets = Annotated[list[FacetName], Field(max_length=20)]
Sort = Annotated[list[Annotated[dict[SortField, Order], Field(min_length=1, max_length=1)]], Field(max_length=5)]


def sort_keys(sort: list[dict[Any, Any]]) -> tuple[tuple[str, bool], ...]:
    """Fields and whether they descend, without relevance, which decides anyway.

    Raises:
        ValueError: a field twice, relevance ascending, or anything after relevance.
    """
    keys = [next(iter(item.items())) for item in sort]
    names = [name for name, _ in keys]
    if len(set(names)) < len(names):
        raise ValueError("name each field once")
    if ("relevance", "asc") in keys:
        raise ValueError('relevance can only be "desc"')
    if "relevance" in names[:-1]:
        raise ValueError("relevance decides everything that is left: put it last, or leave it out")
    return tuple((name, order == "desc") for name, order in keys if name != "relevance")


class FacetValue(BaseModel):
    """One value of a field."""

    value: str | bool
    count: int = Field(description="products of the result set that have it")


class FacetRange(BaseModel):
    """A range of a field's numbers."""

    from_: float | None = Field(alias="from", description="from here on; null: whatever is below `to`")
    to: float | None = Field(description="below this; null: whatever is from `from` on")
    count: int = Field(description="products of the result set that a filter with `gte` from and `lt` to lets through")


class Facet(BaseModel):
    """Counts of one field: `values` and `other`, or `min`, `max` and `ranges`."""

    values: list[FacetValue] | None = Field(None, description="of texts, true and false: largest first, at most 50")
    other: int | None = Field(None, description="the counts of all further values together")
    min: float | None = None
    max: float | None = None
    ranges: list[FacetRange] | None = Field(None, description="of numbers")


class Group(BaseModel):
    """The products that a hit stands for."""

    size: int = Field(description="products of the result set in the group")
    product_ids: list[str] = Field(description="best first, the hit's own among them; at most 20")


class Suggestion(BaseModel):
    """What somebody may be typing."""

    text: str
    count: int = Field(description="products it comes from")


class Suggestions(BaseModel):
    """Completions, the most frequent first."""

    request_id: str
    took_ms: float
    suggestions: list[Suggestion]
