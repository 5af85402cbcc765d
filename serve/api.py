"""The HTTP contract: what requests and answers hold. The OpenAPI document at /openapi.json is made from this file."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    SkipValidation,
    field_validator,
    model_validator,
)

from fuserank.records.schema import EVENT_TYPES
from serve.api_refine import Facet, Facets, Group, Sort, sort_keys

Identifier = Annotated[str, Field(min_length=1, max_length=256)]
Limit = Annotated[int, Field(ge=1, description="hits in one answer, at most serve.max_limit")]
Deadline = Annotated[int, Field(ge=1, le=60_000, description="what there is no time for is left out: see `degraded`")]
Weight = Annotated[FiniteFloat, Field(ge=0, le=100)]


def _decode(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.partition("base64,")[2] if value.startswith("data:") else value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not valid base64") from None


Media = Annotated[
    bytes,
    BeforeValidator(_decode, json_schema_input_type=str),
    Field(min_length=1, json_schema_extra={"type": "string", "contentEncoding": "base64", "format": "byte"}),
]


class Body(BaseModel):
    """A request body; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class SearchRequest(Body):
    """A query by words, picture, sound or any mixture of them."""

    text: Annotated[str, Field(max_length=2000)] | None = None
    image: Media | None = Field(None, description="base64 of a PNG, JPEG, … file; a data: URL works too")
    audio: Media | None = Field(None, description="base64 of a WAV, FLAC, … file; a data: URL works too")
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    limit: Limit = 10
    offset: Annotated[int, Field(ge=0, le=10_000)] = 0
    weights: dict[Literal["text", "image", "audio"], Weight] | None = Field(
        None,
        description="how much each part of the query counts; 1 leaves the model's own weight, 0 leaves the part out",
    )
    filter: dict[str, Any] | None = Field(
        None,
        description='e.g. {"and": [{"price": {"lte": 80}}, {"category": ["shoes"]}]}; applied before ranking',
    )
    exclude: Annotated[list[Identifier], Field(max_length=1000)] = []
    deadline_ms: Deadline | None = None
    explain: bool = False
    facets: Facets = Field([], description="fields to count: brand, category, in_stock, price, …, attributes.NAME")
    sort: Sort = Field([], description='e.g. [{"price": "asc"}]; missing values come last, equal ones by relevance')
    group_by: Literal["parent_id"] | None = Field(None, description="one hit a parent, the best of its products")
    highlight: bool = Field(False, description="mark the words that were found in title and description")

    @field_validator("sort")
    @classmethod
    def _sortable(cls, sort: list[Any]) -> list[Any]:
        sort_keys(sort)
        return sort

    @field_validator("text")
    @classmethod
    def _strip(cls, text: str | None) -> str | None:
        return (text or "").strip() or None

    @model_validator(mode="after")
    def _asks_something(self) -> "SearchRequest":
        if self.text is None and self.image is None and self.audio is None:
            raise ValueError("give at least one of text, image, audio")
        present = [m for m in ("text", "image", "audio") if getattr(self, m)]
        if self.weights and all(self.weights.get(m, 1) == 0 for m in present):  # type: ignore[call-overload]
            raise ValueError("weights leave out every part of the query")
        return self


class RecommendRequest(Body):
    """What a user may like next, from their recent events and the products given."""

    user_id: Identifier | None = None
    session_id: Identifier | None = None
    product_ids: Annotated[list[Identifier], Field(max_length=100)] = Field(
        [], description="products looked at just now, oldest first; they count as views after the user's stored events"
    )
    limit: Limit = 10
    filter: dict[str, Any] | None = None
    exclude_seen: bool = Field(True, description="leave out products the user has had an event with")
    deadline_ms: Deadline | None = None
    explain: bool = Field(False, description="tell each hit's `chances`, where a policy answers")


class EventIn(BaseModel):
    """One thing a user did. Send the request_id and position of the answer it followed from.

    The store checks events one by one (store/validate.py), so that a bad one never holds up the others.
    """

    event_id: Identifier | None = Field(
        None, description="makes sending again harmless; made from the content if left out"
    )
    type: Literal[EVENT_TYPES]  # type: ignore[valid-type]
    product_id: Identifier
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    request_id: Identifier | None = None
    position: Annotated[int, Field(ge=0)] | None = Field(None, description="0-based place in the answer")
    value: FiniteFloat | None = Field(None, description="e.g. the amount of a purchase")
    timestamp: datetime | int | None = Field(
        None, description="ISO 8601 or milliseconds since 1970; the time of arrival if left out"
    )


Events = Annotated[list[SkipValidation[EventIn]], Field(max_length=1000)]


class Price(BaseModel):
    """An amount of money."""

    amount: float = Field(description="the lowest where it is a range")
    max: float | None = Field(None, description="the highest of a range, such as the prices of its variants; else null")
    currency: str | None


class Explanation(BaseModel):
    """Why a hit stands where it stands."""

    contributions: dict[str, float] = Field(
        description="the score split over the product's modalities (Shapley values of the fused score), `words`, what "
        "word search added, and `reranking`, what the reranker changed; they sum to the score"
    )
    fused_score: float
    lexical_score: float
    modality_scores: dict[str, float] = Field(description="score of each modality alone; left out where missing")
    rank_before: int = Field(description="0-based rank before reranking; with `sort`, in that order before grouping")
    rank_after: int = Field(description="0-based rank in the whole answer, pages before this one included")


class Hit(BaseModel):
    """One product of an answer."""

    product_id: str
    score: float
    title: str | None
    price: Price | None
    brand: str | None
    image: str | None = Field(description="URL of the main picture, relative to the server")
    in_stock: bool | None
    explanation: Explanation | None = Field(None, description="with `explain: true`")
    highlights: dict[Literal["title", "description"], str] | None = Field(
        None,
        description="with `highlight: true`: HTML, escaped, found words in <mark>; a field without any is left out",
    )
    group: Group | None = Field(None, description="with `group_by`")
    propensity: float | None = Field(None, description="where a policy orders searches: as for recommendations")
    policy: str | None = None
    chances: dict[Literal["click", "purchase"], float] | None = Field(None, description="with `explain`: docs/HTTP.md")


class Answer(BaseModel):
    """A ranked list of products."""

    request_id: str
    took_ms: float
    stages: dict[str, float] = Field(description="milliseconds: queue, encode, retrieve, rerank, render, log")
    model_version: str
    generation: str
    degraded: list[Literal["reranker", "image", "audio", "text", "history"]] = Field(
        description="what was left out to keep the deadline; `text`: the words were searched, without their vector"
    )
    logged: bool = Field(description="whether events can join this answer by its request_id: it is kept, durably")
    hits: list[Hit]
    corrected: str | None = Field(
        None, description="the text as its words were searched, if that is not as it was typed"
    )
    facets: dict[str, Facet] | None = Field(None, description="with `facets`")
    total: int | None = Field(None, description="products in the result set; with `facets`, `sort` or `group_by`")
    total_relation: Literal["eq", "gte"] | None = Field(None, description="gte: the result set was cut, there are more")
    total_groups: int | None = Field(None, description="groups in the result set; with `group_by`")


class RecommendedHit(Hit):
    """A hit of a recommendation, with what the feedback loop needs to learn from it."""

    propensity: float = Field(description="chance that the policy shows this product here")  # type: ignore[assignment]
    policy: str = Field(description="policy@version that ordered the answer")  # type: ignore[assignment]


class Recommendation(Answer):
    """Recommended products."""

    hits: list[RecommendedHit]  # type: ignore[assignment]
    source: Literal["recommender", "content", "popularity"] = Field(
        description="the recommender, likeness to the products given, or, for unknown users, popularity"
    )


class Product(BaseModel):
    """One product, whole."""

    product_id: str
    parent_id: str | None
    title: str | None
    description: str | None
    brand: str | None
    category: list[str]
    price: Price | None
    variant_ids: list[str] = Field(description="other ids the product is known by")
    attributes: dict[str, str | list[str]] = Field(description="several values, such as sizes, as a list")
    in_stock: bool | None
    rating: float | None
    review_count: int | None
    image: str | None


class RejectedEvent(BaseModel):
    """An event that was not stored."""

    index: int
    reason: str


class EventsAnswer(BaseModel):
    """What became of the events sent; accepted ones are durable."""

    accepted: int
    duplicates: int
    rejected: list[RejectedEvent]


class Generation(BaseModel):
    """A generation on disk."""

    id: str
    created: str
    model_version: str
    products: int
    active: bool
    state: Literal["building", "ready", "warming", "active", "retired"] = Field(
        description="warming: asked for, and being made ready on every replica; retired: answered before"
    )
    reason: str | None = Field(None, description="why its activation did not come about")


class Generations(BaseModel):
    """All generations on disk."""

    generations: list[Generation]


class Health(BaseModel):
    """Whether the service is up."""

    status: Literal["live", "ready"]


class ErrorBody(BaseModel):
    """What went wrong and what to do."""

    code: str
    message: str
    hint: str
    request_id: str = Field(description="as in the header X-Request-ID and in the service's log")


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorBody


def reason(errors: Sequence[Any]) -> str:
    """Pydantic's errors in one line: where and what, never the value."""
    parts = []
    for error in errors[:3]:
        path = ".".join(str(part) for part in error["loc"] if part != "body")
        message = error["msg"].removeprefix("Value error, ")
        parts.append(f"{path}: {message}" if path else message)
    return "; ".join(parts)
