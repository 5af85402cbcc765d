"""Prices as shops write them → exact amounts and currencies. Reads nothing, writes nothing."""

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from fuserank.records.fields import is_empty, number

LIMIT = Decimal(10) ** 15  # decimal128(18, 2) holds one digit more
CENT = Decimal("0.01")
Mark = Literal[".", ","]

_SIGNS = {  # the sign's most traded currency; a shop that means another maps or sets `currency`
    "R$": "BRL", "A$": "AUD", "C$": "CAD", "NZ$": "NZD", "HK$": "HKD", "S$": "SGD", "US$": "USD", "$": "USD",
    "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW", "₽": "RUB", "₺": "TRY", "₴": "UAH", "zł": "PLN",
    "Kč": "CZK", "Ft": "HUF", "元": "CNY", "円": "JPY", "kr": "SEK", "Fr.": "CHF", "Rs": "INR",
}  # fmt: skip
_CODES = set(_SIGNS.values()) | {
    "DKK", "NOK", "ISK", "BGN", "RON", "MXN", "ARS", "CLP", "COP", "PEN", "ZAR", "EGP", "NGN", "KES", "MAD", "AED",
    "SAR", "QAR", "ILS", "IDR", "MYR", "PHP", "THB", "VND", "TWD", "PKR", "BDT", "LKR", "KZT", "RSD",
}  # fmt: skip
_CODE = re.compile(r"\b[A-Z]{3}\b")
_FROM = re.compile(r"^\s*(?:from|between|ab|von|zwischen|à partir de|desde|da)\s+", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?:[-\u2013\u2014~]|\bto\b|\bbis\b|\bund\b|\band\b)\s*")
_MONTH = re.compile(r"\d{4}-\d{1,2}(-\d{1,2})?")  # a date, no range
_WORD = r"(?:[^\W\d]{1,4}\.?|[^\w\s.,+()'\-]{1,2})"  # a code or a sign
_WORDS = rf"(?:{_WORD}\s*){{0,2}}"
_PRICE = re.compile(rf"(?P<before>{_WORDS})(?P<number>[+-]?[\d.,' ]*\d[.,]?)\s*(?P<after>{_WORDS})")
_DASHES = re.compile(r"(?<=\d)[.,]\s?[-\u2013\u2014]+(?!\s*\d)")  # `12,-`: no cents
_SPACED = re.compile(r"[+-]?\d{1,3}(?:[ ']\d{3})+(?:[.,]\d*)?")
_INDIAN = re.compile(r"[+-]?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d*)?")


def price(value: Any, decimal: Mark | None = None) -> Decimal | None:
    """An exact amount ≥ 0: numbers, `19.99`, `$1,299.00`, `1.299,00 €`, `12,50`, `CHF 12.-`, `1 299,00 kr`.

    Args:
        decimal: the decimal mark of the shop's texts; None goes by the digits: three after the last mark are thousands
            after a comma, and after a point where a currency stands beside them (`1.299 €`), unless a 0 is before it.

    Raises:
        ValueError: no number, more than one, negative, not finite or too large.
    """
    if is_empty(value):
        return None
    if isinstance(value, (bool, list, dict)):
        raise ValueError("a price is one number")
    try:
        amount = Decimal(_number(value, decimal) if isinstance(value, str) else str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a price") from None
    if not amount.is_finite() or amount < 0 or amount > LIMIT:
        raise ValueError(f"{value!r} is not a price")
    return amount


def price_range(value: Any, decimal: Mark | None = None) -> tuple[Decimal, Decimal] | None:
    """Lowest and highest amount: of `10 – 20`, `€10.00-€20.00`, `ab 5 bis 7` or a list; twice the same for one price.

    Raises:
        ValueError: see `price`.
    """
    if isinstance(value, (list, tuple)):
        found = [ends for part in value if (ends := price_range(part, decimal)) is not None]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None
    try:
        amount = price(value, decimal)
    except ValueError:
        parts = _BETWEEN.split(value) if isinstance(value, str) and not _MONTH.fullmatch(value.strip()) else []
        if len(parts) != 2 or not all(parts):
            raise
        ends = [amount for part in parts if (amount := price(_FROM.sub("", part), decimal)) is not None]
        return min(ends), max(ends)
    return None if amount is None else (amount, amount)


def amount(value: Any) -> float | None:
    """A finite number, also as a price is written (`12,50 €`); it may be negative.

    Raises:
        ValueError: not a number.
    """
    try:
        return number(value)
    except ValueError:
        found = price(value)
        return None if found is None else float(found)


def currency(value: Any) -> str | None:
    """ISO 4217 code of a code or of the sign in a price's text (`$1,299.00`); None where there is none, or several."""
    if not isinstance(value, str):
        return None
    found = {code for code in _CODE.findall(value) if code in _CODES or len(value.strip()) == 3}
    rest = value
    for sign in sorted(_SIGNS, key=len, reverse=True):
        if not found and sign in rest:
            rest = rest.replace(sign, " ")
            found.add(_SIGNS[sign])
    return found.pop() if len(found) == 1 else None


def _number(value: str, decimal: Mark | None) -> str:
    """`$1,299.00` → `1299.00`; what is no price comes back as it is, for Decimal to refuse or to read (`1e3`)."""
    words = unicodedata.normalize("NFKC", value).replace("\u2212", "-").replace("\u2019", "'").strip()
    words = _DASHES.sub("", words)
    matched = _PRICE.fullmatch(words)
    if matched is None:
        return words
    number = matched["number"].strip()
    if " " in number or "'" in number:
        if not _SPACED.fullmatch(number):
            return words
        number = re.sub(r"[ ']", "", number)
        decimal = decimal or ("," if "," in number else ".")
    elif decimal is None and _INDIAN.fullmatch(number):
        decimal = "."
    number = number.rstrip(".,")
    if decimal is not None:
        whole, _, cents = number.replace("," if decimal == "." else ".", "").partition(decimal)
        return f"{whole or '0'}.{cents}" if cents else whole
    last = max(number.rfind("."), number.rfind(","))
    if last < 0:
        return number
    whole, decimals = re.sub(r"[.,]", "", number[:last]), number[last + 1 :]
    repeated = number.count(number[last]) > 1
    if repeated and not all(len(group) == 3 for group in number.split(number[last])[1:]):
        return words  # a date or a version, not groups of thousands
    beside = bool(matched["before"].strip() or matched["after"].strip())
    three = len(decimals) == 3 and whole.lstrip("+-0") != "" and len(whole.lstrip("+-")) <= 3
    grouped = repeated or (three and (number[last] == "," or beside))
    return f"{whole}{decimals}" if grouped else f"{whole or '0'}.{decimals}"
