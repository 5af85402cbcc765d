"""One value of a shop's table → the typed value of a record. Reads nothing, writes nothing.

Every parser returns None for an empty value and raises ValueError for one it cannot understand; the caller sets that
value (or row) aside with the field's name.
"""

import html
import json
import math
import re
import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

_TAG = re.compile(r"<(?:[a-zA-Z/!?][^<>]*)>")
_HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\ufeff]")
_FROM = re.compile(r"^\s*(?:from|between|ab|von|zwischen)\s+", re.IGNORECASE)
_CODE = re.compile(r"\b[A-Z]{3}\b")
_CURRENCIES = {  # the sign's most traded currency; a shop that means another maps or sets `currency`
    "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW", "₽": "RUB", "₺": "TRY", "₴": "UAH",
    "zł": "PLN", "Kč": "CZK", "Ft": "HUF", "R$": "BRL", "元": "CNY", "円": "JPY", "kr": "SEK", "Fr.": "CHF",
}  # fmt: skip
_YES, _NO = {"true", "t", "yes", "y", "1", "1.0"}, {"false", "f", "no", "n", "0", "0.0"}
_PRICE_LIMIT = Decimal(10) ** 15  # decimal128(18, 2) holds one digit more
_MILLISECONDS = 100_000_000_000  # as seconds, the year 5138; numbers above it are milliseconds


def is_empty(value: Any) -> bool:
    """True for what a table writes when it has no value: null, NaN, blank text, empty list."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, (list, tuple, dict)) and len(value) == 0


def plain(value: Any) -> str:
    """A value as text, unchanged where it is text already; whole floats lose their `.0`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def text(value: Any) -> str | None:
    """Readable text: HTML tags and entities resolved, Unicode NFKC, control characters and runs of space repaired."""
    if is_empty(value):
        return None
    found = plain(value)
    if "<" in found:
        found = _TAG.sub(" ", _HIDDEN.sub(" ", found))
    if "&" in found:
        found = html.unescape(found)
    if not found.isascii():
        found = unicodedata.normalize("NFKC", found).encode("utf-8", "replace").decode("utf-8")
    return " ".join(_CONTROL.sub(" ", found).split()) or None


def identifier(value: Any) -> str | None:
    """An id: text without outer space."""
    if is_empty(value):
        return None
    return plain(value).encode("utf-8", "replace").decode("utf-8").strip() or None


def items(value: Any, separator: str) -> list[str]:
    """A list field: a list as it is, text split at the separator; empty items dropped."""
    if is_empty(value):
        return []
    parts = list(value) if isinstance(value, (list, tuple)) else plain(value).split(separator)
    found = (identifier(part) for part in parts)
    return [part for part in found if part]


def price(value: Any) -> Decimal | None:
    """An amount ≥ 0 with two decimals: numbers, `19.99`, `$1,299.00`, `1.299,00 €`, `12,50`.

    Raises:
        ValueError: no number, more than one, negative, not finite or too large.
    """
    if is_empty(value):
        return None
    if isinstance(value, bool):
        raise ValueError("a price is a number")
    try:
        amount = Decimal(_number_text(value) if isinstance(value, str) else str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a price") from None
    if not amount.is_finite() or amount < 0 or amount > _PRICE_LIMIT:
        raise ValueError(f"{value!r} is not a price")
    return amount.quantize(Decimal("0.01"))


def price_range(value: Any) -> tuple[Decimal | None, Decimal | None]:
    """Lowest and highest amount: of `10 – 20`, `€10.00-€20.00`, `ab 5 bis 7`; twice the same for a single price.

    Raises:
        ValueError: see `price`.
    """
    try:
        found = price(value)
    except ValueError:
        parts = (
            re.split(r"\s*(?:[-\u2013\u2014~]|\bto\b|\bbis\b|\bund\b|\band\b)\s*", value)
            if isinstance(value, str)
            else []
        )
        if len(parts) != 2 or not all(parts):
            raise
        low, high = sorted(amount for part in parts if (amount := price(_FROM.sub("", part))) is not None)
        return low, high
    return found, found


def currency(value: Any) -> str | None:
    """ISO 4217 code of a code or of the sign in a price's text (`$1,299.00`); None where there is none, or several."""
    if not isinstance(value, str):
        return None
    found = {code for code in _CODE.findall(value) if code in _CURRENCIES.values() or len(value.strip()) == 3}
    found |= {code for sign, code in _CURRENCIES.items() if sign in value and not found}
    return found.pop() if len(found) == 1 else None


def _number_text(value: str) -> str:
    """`$1,299.00` → `1299.00`: the last separator is the decimal one unless three digits follow it alone."""
    words = value.replace("\u00a0", " ").strip()
    matched = re.fullmatch(r"[^\d\s.,+-]{0,4}\s*([+-]?\d[\d.,' ]*|[+-]?\.\d+)\s*[^\d\s.,+-]{0,4}", words)
    if matched is None:
        return words
    number = re.sub(r"[' ]", "", matched.group(1)).rstrip(".,")
    last = max(number.rfind("."), number.rfind(","))
    if last < 0:
        return number
    whole, decimals = re.sub(r"[.,]", "", number[:last]), number[last + 1 :]
    repeated = number.count(number[last]) > 1
    if repeated and not all(len(group) == 3 for group in number.split(number[last])[1:]):
        return words  # a date or a version, not groups of thousands
    grouped = repeated or (number[last] == "," and len(decimals) == 3)
    return f"{whole}{decimals}" if grouped else f"{whole or '0'}.{decimals}"


def number(value: Any) -> float | None:
    """A finite number.

    Raises:
        ValueError: not a number.
    """
    if is_empty(value):
        return None
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value!r} is not finite")
    return found


def count(value: Any) -> int | None:
    """A whole number that fits 32 bits.

    Raises:
        ValueError: not a whole number.
    """
    found = number(value)
    if found is None:
        return None
    if not found.is_integer() or abs(found) >= 2**31:
        raise ValueError(f"{value!r} is not a whole number")
    return int(found)


def flag(value: Any) -> bool | None:
    """Yes or no.

    Raises:
        ValueError: neither.
    """
    if is_empty(value):
        return None
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise ValueError(f"{value!r} is neither yes nor no")


def moment(value: Any) -> datetime | None:
    """A point in time as naive UTC: milliseconds or seconds since 1970, ISO 8601, or a datetime.

    Raises:
        ValueError: none of these.
    """
    if is_empty(value):
        return None
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day)
    elif isinstance(value, (int, float)) or re.fullmatch(r"-?\d+(\.\d+)?", str(value).strip()):
        stamp = float(value)
        try:
            found = datetime.fromtimestamp(stamp / 1000 if abs(stamp) >= _MILLISECONDS else stamp, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError(f"{value!r} is not a time: {error}") from None
    else:
        found = datetime.fromisoformat(str(value).strip())
    if found.tzinfo is not None:
        try:
            found = found.astimezone(UTC).replace(tzinfo=None)
        except OverflowError as error:
            raise ValueError(f"{value!r} is not a time: {error}") from None
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
