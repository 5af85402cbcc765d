"""The HTTP contract of scoring and embedding without a search; the rest of it is in api.py."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SkipValidation, model_validator

from serve.api import Body, Deadline, Identifier, Media, Weight
from serve.api_products import ProductChange


class QueryParts(Body):
    """Words, a picture, a sound or any mixture of them."""

    text: Annotated[str, Field(max_length=2000)] | None = None
    image: Media | None = Field(None, description="base64 of a PNG, JPEG, … file; a data: URL works too")
    audio: Media | None = Field(None, description="base64 of a WAV, FLAC, … file; a data: URL works too")

    def media(self) -> dict[str, Any]:
        """Modality → text or encoded bytes, of those that are there."""
        parts = {"text": (self.text or "").strip() or None, "image": self.image, "audio": self.audio}
        return {modality: part for modality, part in parts.items() if part is not None}


class RankQuery(QueryParts):
    """What the products are scored for."""

    weights: dict[Literal["text", "image", "audio"], Weight] | None = Field(None, description="as in a search")

    @model_validator(mode="after")
    def _asks_something(self) -> "RankQuery":
        if all((self.weights or {}).get(part, 1) == 0 for part in self.media()):  # type: ignore[call-overload]
            raise ValueError("give at least one of text, image, audio that has a weight")
        return self


class RankRequest(Body):
    """Products to be scored and ordered."""

    query: RankQuery
    user_id: Identifier | None = None
    products: Annotated[
        list[SkipValidation[Identifier | ProductChange]],
        Field(
            min_length=1,
            max_length=1000,
            description="ids of products of the catalogue, or whole products, which need not be in it; at most "
            "serve.max_given",
        ),
    ]
    deadline_ms: Deadline | None = None


class Scored(BaseModel):
    """One product and its score."""

    product_id: str
    score: float
    index: int = Field(description="its place in `products`")


class RankAnswer(BaseModel):
    """The products, best first."""

    request_id: str
    took_ms: float
    stages: dict[str, float] = Field(description="milliseconds: introduce, queue, encode, retrieve, rerank, render")
    model_version: str
    generation: str
    degraded: list[Literal["reranker", "image", "audio", "text", "history"]] = Field(
        description="what was left out to keep the deadline"
    )
    hits: list[Scored]
    unknown: list[int] = Field(description="places in `products` of ids that the catalogue does not have")


class EmbedInput(QueryParts):
    """One query, or one product: its parts, or all of it."""

    product: SkipValidation[ProductChange] | None = Field(
        None, description="a whole product, as for POST /v1/products; with `kind: product`, in place of its parts"
    )


class EmbedRequest(Body):
    """What is to become vectors."""

    inputs: Annotated[list[EmbedInput], Field(min_length=1, max_length=1000, description="at most serve.max_given")]
    kind: Literal["query", "product"]

    @model_validator(mode="after")
    def _says_something(self) -> "EmbedRequest":
        for place, one in enumerate(self.inputs):
            if bool(one.media()) == (one.product is not None):
                raise ValueError(f"inputs.{place}: give text, image or audio, or a whole product")
            if one.product is not None and self.kind == "query":
                raise ValueError(f"inputs.{place}: a query has no product; give text, image or audio")
        return self


class EmbedAnswer(BaseModel):
    """A vector an input, in order."""

    request_id: str
    took_ms: float
    model_version: str
    generation: str
    width: int = Field(description="numbers of a vector")
    vectors: list[list[float]] = Field(
        description="the dot product of a query's and a product's is a search's fused score; of one generation only"
    )
