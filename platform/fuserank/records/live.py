"""A product as a shop sends it over HTTP ↔ the JSON record the store keeps ↔ a PRODUCT row. Reads and writes nothing.

Values are cleaned by the same parsers as a catalogue's files (fields.py, money.py), so that a product sent live becomes
the same text and the same numbers as one that was imported. A JSON record holds only the fields that have a value:
amounts as text, times in ISO 8601, attributes as name → list of texts, media as names in the media folder.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from fuserank.errors import InputError
from fuserank.records import fields, money
from fuserank.records.schema import PRODUCT

ID_LENGTH = 256
TEXT_LENGTHS = {"title": 2_000, "description": 50_000, "brand": 500, "currency": 3}
MAX_LEVELS, MAX_ATTRIBUTES, MAX_VALUES, MAX_IMAGES = 32, 200, 100, 16
VALUE_LENGTH = 2_000  # of one attribute value or one category level
Record = dict[str, Any]
_HELD = tuple(name for name in PRODUCT.names if name not in ("labels", "split"))  # those are for judging only


def identifier(product: Any) -> str:
    """A product's id.

    Raises:
        InputError: the product is no object, or its id cannot be one.
    """
    if not isinstance(product, Mapping):
        raise InputError("a product must be an object.", 'Write e.g. {"product_id": "p1", "title": "Red shoe"}.')
    return product_id(product.get("product_id"))


def product_id(value: Any) -> str:
    """A value that can be a product's id. Raises InputError."""
    if not isinstance(value, str) or not value.strip():
        raise InputError("product_id must be text that is not empty.", "Every product needs an id of its own.")
    found = value.strip()
    if len(found) > ID_LENGTH or "\0" in found or any("\ud800" <= character <= "\udfff" for character in found):
        raise InputError(f"product_id must have at most {ID_LENGTH} characters, all of them valid.")
    return found


def clean(product: Mapping[str, Any]) -> tuple[Record, dict[str, Any]]:
    """What a shop sent, without the id → the values that are set (None where it sent null or nothing readable), and the
    media among them as bytes: `images` a list, `audio` one.

    Raises:
        InputError: an unknown field or a value that cannot be understood; it names the field and the remedy.
    """
    values: Record = {}
    media: dict[str, Any] = {}
    for name, value in product.items():
        if name == "product_id":
            continue
        if name not in _PARSERS:
            raise InputError(f"unknown field {str(name)[:40]!r}.", f"Fields: product_id, {', '.join(_PARSERS)}.")
        try:
            found = None if value is None else _PARSERS[name](value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(f"{name}: {_REMEDIES.get(name, error)}.") from None
        (media if name in ("images", "audio") and found is not None else values)[name] = found
    _range(values)
    return values, media


def record(identity: str, values: Mapping[str, Any]) -> Record:
    """The JSON record of a product: its id and the fields that have a value."""
    found = {name: values[name] for name in _HELD if values.get(name) not in (None, [], {})}
    return {"product_id": identity} | {name: value for name, value in found.items() if name != "product_id"}


def merge(record: Mapping[str, Any] | None, patch: Mapping[str, Any]) -> Record:
    """A record with a patch laid over it: None takes a field away; `attributes` are merged name by name alike
    (JSON merge patch, RFC 7396)."""
    merged = dict(record or {})
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def from_row(row: Mapping[str, Any]) -> Record:
    """A PRODUCT row, as Arrow's to_pylist gives it → its JSON record."""
    values = dict(row)
    for name in ("price", "price_max"):
        values[name] = None if row.get(name) is None else str(row[name])
    values["updated_at"] = None if row.get("updated_at") is None else row["updated_at"].isoformat()
    grouped: dict[str, list[str]] = {}
    for name, value in _pairs(row.get("attributes")):
        if value is not None:
            grouped.setdefault(name, []).append(value)
    return record(row["product_id"], values | {"attributes": grouped})


def to_row(found: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON record → a PRODUCT row for pa.Table.from_pylist."""
    row: dict[str, Any] = dict.fromkeys(PRODUCT.names) | dict(found)
    for name in ("price", "price_max"):
        row[name] = None if row[name] is None else Decimal(row[name])
    row["updated_at"] = fields.moment(row["updated_at"])
    row["attributes"] = [(name, value) for name, values in (row["attributes"] or {}).items() for value in values]
    for name in ("images", "category"):
        row[name] = row[name] or []
    return row


def _pairs(value: Any) -> Iterator[tuple[str, str | None]]:
    yield from value.items() if isinstance(value, Mapping) else value or ()


def _text(name: str) -> Callable[[Any], str | None]:
    def parse(value: Any) -> str | None:
        if not isinstance(value, str):
            raise ValueError("must be text")
        if len(value) > TEXT_LENGTHS[name]:
            raise ValueError(f"must have at most {TEXT_LENGTHS[name]} characters")
        return fields.text(value)

    return parse


def _strings(value: Any, most: int) -> list[str]:
    values = [value] if isinstance(value, str | int | float) else value
    if not isinstance(values, list) or len(values) > most:
        raise ValueError(f"must be a list of at most {most} texts")
    if not all(isinstance(one, str | int | float) for one in values):
        raise ValueError("must hold texts, numbers or true and false")
    if any(isinstance(one, str) and len(one) > VALUE_LENGTH for one in values):
        raise ValueError(f"must hold texts of at most {VALUE_LENGTH} characters")
    return [found for one in values if (found := fields.text(one))]


def _category(value: Any) -> list[str]:
    return _strings(value, MAX_LEVELS)


def _attributes(value: Any) -> dict[str, list[str] | None]:
    if not isinstance(value, dict) or len(value) > MAX_ATTRIBUTES:
        raise ValueError(f"must be an object of at most {MAX_ATTRIBUTES} names")
    found: dict[str, list[str] | None] = {}
    for name, one in value.items():
        key = fields.text(name[:VALUE_LENGTH])
        if key:
            found[key] = None if one is None else _strings(one, MAX_VALUES) or None
    return found


def _amount(value: Any) -> str | None:
    if not isinstance(value, str | int | float):
        raise ValueError("must be a number")
    found = money.price(value)
    return None if found is None else str(found.quantize(money.CENT, ROUND_HALF_EVEN))


def _count(value: Any) -> int | None:
    found = fields.count(value)
    if found is not None and found < 0:
        raise ValueError("must not be negative")
    return found


def _moment(value: Any) -> str | None:
    found = fields.moment(value)
    return None if found is None else found.isoformat()


def _parent(value: Any) -> str:
    try:
        return product_id(value)
    except InputError:
        raise ValueError(f"must be text of at most {ID_LENGTH} characters") from None


def _images(value: Any) -> list[bytes]:
    if not isinstance(value, list) or len(value) > MAX_IMAGES:
        raise ValueError(f"must be a list of at most {MAX_IMAGES} pictures")
    return [_media(one) for one in value]


def _media(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be base64")
    if value[:8].lower().startswith(("http:", "https:", "ftp:", "file:")):
        raise ValueError("is a URL, and URLs are never fetched; send the file itself as base64")
    try:
        found = base64.b64decode(value.partition("base64,")[2] if value.startswith("data:") else value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not valid base64") from None
    if not found:
        raise ValueError("is empty; leave it out")
    return found


def _range(values: Record) -> None:
    low, high = values.get("price"), values.get("price_max")
    if low is not None and high is not None:
        if Decimal(high) < Decimal(low):
            raise InputError("price_max: lies below price.", "Give the highest price of the range, or leave it out.")
        if Decimal(high) == Decimal(low):
            values["price_max"] = None


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "parent_id": _parent,
    **{name: _text(name) for name in ("title", "description", "brand", "currency")},
    "images": _images,
    "audio": _media,
    "price": _amount,
    "price_max": _amount,
    "category": _category,
    "attributes": _attributes,
    "in_stock": fields.flag,
    "rating": fields.rating,
    "review_count": _count,
    "updated_at": _moment,
}
_REMEDIES = {
    "price": 'must be an amount of 0 or more, such as 12.5 or "12.50"',
    "price_max": 'must be an amount of 0 or more, such as 12.5 or "12.50"',
    "in_stock": "must be true or false",
    "rating": "must be a number",
    "review_count": "must be a whole number of 0 or more",
    "updated_at": "must be ISO 8601 or milliseconds since 1970",
}
