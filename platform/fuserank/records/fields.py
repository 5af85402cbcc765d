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
from typing import Any

_TAG = re.compile(r"<(?:[a-zA-Z/!?][^<>]*)>")
_HIDDEN = re.compile(r"<(script|style)\b|<!--", re.IGNORECASE)
_ENDS = {"": re.compile("--(?=>)"), "script": re.compile(r"</script\b", re.I), "style": re.compile(r"</style\b", re.I)}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\ufeff]")
_YES = {"true", "t", "yes", "y", "1.0", "instock", "available", "onstock", "limitedavailability", "instoreonly"}
_NO = {"false", "f", "no", "n", "0.0", "outofstock", "soldout", "unavailable", "notavailable", "discontinued"}
_DAY = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
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
    for _ in range(2):  # feeds often escape the HTML once more
        if "<" in found:
            found = _TAG.sub(" ", _without_hidden(found))
        if "&" not in found:
            break
        found = html.unescape(found)
    if "<" in found:
        found = _TAG.sub(" ", found)
    if not found.isascii():
        found = unicodedata.normalize("NFKC", found).encode("utf-8", "replace").decode("utf-8")
    return " ".join(_CONTROL.sub(" ", found).split()) or None


def _without_hidden(markup: str) -> str:
    """Without scripts, styles and comments. In one pass: one pattern for both ends would look for the far end from each
    opening again."""
    kept, at = [], 0
    ended: set[str] = set()  # kinds without a further end
    for opening in _HIDDEN.finditer(markup):
        kind = (opening[1] or "").lower()
        if opening.start() < at or kind in ended:
            continue
        end = _ENDS[kind].search(markup, opening.end())
        if end is None:
            ended.add(kind)
            continue
        kept.append(markup[at : opening.start()])
        closing = markup.find(">", end.end())
        at = len(markup) if closing < 0 else closing + 1
    return " ".join([*kept, markup[at:]])


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


def rating(value: Any) -> float | None:
    """A number that fits 32 bits.

    Raises:
        ValueError: it does not.
    """
    found = number(value)
    if found is not None and abs(found) > 1e30:
        raise ValueError(f"{value!r} is no rating")
    return found


def attributes(value: Any) -> list[tuple[str, Any]]:
    """Names and values of an object, of JSON text that holds one, or of a list of `{name, value}` or `{key, value}`.

    Raises:
        ValueError: none of these.
    """
    if is_empty(value):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except RecursionError:
            raise ValueError("attributes nested too deep") from None
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        named = [(one.get("name", one.get("key")), one.get("value")) for one in value]
        if all(isinstance(name, str) for name, _ in named):
            return named
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.60} holds no attributes")
    return list(value.items())


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
    word = re.sub(r"[\s_-]+", "", str(value).strip().lower().rpartition("/")[2])  # also schema.org/InStock
    if word in _YES or (word.isdecimal() and int(word) > 0):  # a stock count
        return True
    if word in _NO or (word.isdecimal() and int(word) == 0):
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
    elif isinstance(value, (str, int)) and _DAY.fullmatch(str(value).strip()):
        found = datetime.strptime(str(value).strip(), "%Y%m%d")
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
