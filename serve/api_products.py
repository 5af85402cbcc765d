"""The HTTP contract of live changes of the catalogue; the rest of it is in api.py."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SkipValidation

from serve.api import Identifier

MAX_ITEMS = 1000  # products of one request
Encoded = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64", "format": "byte"})]


class ProductChange(BaseModel):
    """Fields of a product; those left out are missing (POST) or stay as they are (PATCH).

    The service checks products one by one (records/live.py), so that a bad one never holds up the others.
    """

    product_id: Identifier
    parent_id: Identifier | None = None
    title: str | None = None
    description: str | None = None
    images: list[Encoded] | None = Field(
        None, description="base64 of PNG, JPEG, … files, the main picture first; a data: URL works, others are refused"
    )
    audio: Encoded | None = Field(None, description="base64 of a WAV, FLAC, … file")
    price: float | str | None = Field(None, description="an amount; as text where it must be exact")
    price_max: float | str | None = Field(None, description="the highest of a range")
    currency: str | None = Field(None, description="ISO 4217")
    brand: str | None = None
    category: list[str] | None = Field(None, description="from the root down")
    attributes: dict[str, str | float | bool | list[str] | None] | None = Field(
        None, description="PATCH merges them by name; null takes one away"
    )
    in_stock: bool | None = None
    rating: float | None = None
    review_count: int | None = None
    updated_at: datetime | int | None = None


Products = Annotated[list[SkipValidation[ProductChange]], Field(max_length=MAX_ITEMS)]


class Deletion(BaseModel):
    """Products to take away."""

    ids: Annotated[list[SkipValidation[Identifier]], Field(max_length=MAX_ITEMS)]


class ItemStatus(BaseModel):
    """What became of one product sent."""

    product_id: str | None
    status: Literal["accepted", "rejected"]
    seq: int | None = Field(None, description="number in the change log; every replica shows it soon")
    reason: str | None = None
    hint: str | None = None


class ChangesAnswer(BaseModel):
    """What became of the products sent, in order; accepted ones are durable."""

    accepted: int
    rejected: int
    items: list[ItemStatus]
