"""Requests that nobody with good intentions sends, made by a seed: each kind is a function of a random generator."""

import base64
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.serve import hostile_media

JSON = "application/json"


@dataclass
class Hostile:
    """One request, ready to send."""

    kind: str
    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})


VALID: dict[str, tuple[str, Any]] = {  # one good body for each endpoint that takes one
    "/v1/search": (
        "POST",
        {
            "text": "red shoe", "limit": 5, "offset": 0, "user_id": "u", "session_id": "s", "explain": True,
            "weights": {"text": 1.0}, "exclude": ["p01"], "deadline_ms": 9000,
            "filter": {"and": [{"price": {"lte": 80}}, {"category": ["goods"]}, {"not": {"brand": "Acme"}}]},
        },
    ),
    "/v1/recommend": (
        "POST",
        {"user_id": "u", "product_ids": ["p02"], "limit": 5, "filter": {"in_stock": True}, "exclude_seen": True},
    ),
    "/v1/events": (
        "POST",
        [{"event_id": "e", "type": "click", "product_id": "p03", "user_id": "u", "position": 1, "value": 2.5,
          "timestamp": "2026-03-01T10:00:00Z", "request_id": "r"}],
    ),
    "/v1/products": (
        "POST",
        [{"product_id": "h1", "title": "x", "price": 5, "price_max": 7.5, "currency": "EUR", "category": ["a", "b"],
          "attributes": {"size": ["S"], "n": 4}, "in_stock": True, "rating": 4.5, "review_count": 3,
          "updated_at": 1700000000000}],
    ),
    "/v1/products/delete": ("POST", {"ids": ["h1", "h2"]}),
    "/v1/admin/keys": ("POST", {"name": "k", "scopes": ["search"], "seconds": 60, "rate": 1}),
}  # fmt: skip
INJECTIONS = (
    "' OR '1'='1", "'; DROP TABLE events; --", '" UNION SELECT digest FROM api_keys --', "%27%3b", "$(id)", "`id`",
    "{{7*7}}", "${jndi:ldap://x/a}", "#{7*7}", "<script>alert(1)</script>", "*)(uid=*", "../../../../etc/passwd",
    "title:* AND body:[a TO z]", 'a" AND "b', "+a -b ~c^9 (d", "field:(((", "\\", "*", "?", "[* TO *]", "a AND", "NOT",
    "__class__", "__proto__", "constructor", "%s%n%x", "{0.__class__}", "\r\nSet-Cookie: a=b", "file:///etc/passwd",
    "http://169.254.169.254/", "-1", "null", "None", "undefined", "true", "",
)  # fmt: skip
UNICODE = (
    "\u0000", "\ud800", "\udfff\ud800", "\ufeff", "\u202e\u200b\u2066", "e" + "\u0301" * 1500, "\U0001f468\u200d" * 400,
    "İı", "ﬁﬃ", "\u2028\u2029", "\ufffe\uffff", "红色 鞋子", "ﷺ" * 600, "\x01\x1b[31m", "a\u0000b", "\U0010ffff",
)  # fmt: skip
NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 5000, "-0", "-0.0", "9223372036854775808", "1e-400",
    "18446744073709551616", "-9223372036854775809", "2147483648", "0.1e1", "1.0", "1e2", "4e9", "253402300800000", "-1",
    "-62135596800001", "1E+308", "340282366920938463463374607431768211456", "0.30000000000000004",
)  # fmt: skip
PATHS = (
    "../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..%252f..%252fetc", "%00",
    "..\\..\\windows", "%c0%ae%c0%ae/", "/etc/passwd", "//etc/passwd", "%ff%fe", "~root", "p01/../../../x", "." * 300,
    "store.js/../../../pyproject.toml", "a" * 5000, "%0d%0aX-A:b", ";/x", "p01;a=b", "%F0%9F%98%80", "{product_id}",
    "p01%00.png", "%",
)  # fmt: skip


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _endpoint(rng: random.Random) -> tuple[str, str, Any]:
    path = rng.choice(sorted(VALID))
    method, body = VALID[path]
    return method, path, json.loads(json.dumps(body))


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


def _put(body: Any, place: tuple, value: Any) -> Any:
    if not place:
        return value
    target = body
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return body


def _replaced(rng: random.Random, kind: str, value: Any) -> Hostile:
    """A good body with one value replaced."""
    method, path, body = _endpoint(rng)
    place = rng.choice([p for p in _places(body) if p] or [()])
    return Hostile(kind, method, path, _dump(_put(body, place, value)))


def wrong_types(rng: random.Random) -> Hostile:
    """Another type where a value stood."""
    values = (
        None,
        True,
        0,
        -1.5,
        "",
        "x",
        [],
        [[]],
        {},
        {"a": {}},
        [None] * 50,
        {"": None},
        ["x", 1, None],
        {"and": 3},
    )
    return _replaced(rng, "wrong types", rng.choice(values))


def huge_numbers(rng: random.Random) -> Hostile:
    """Numbers no machine word holds, and what JSON forbids."""
    mark = "@@number@@"
    found = _replaced(rng, "huge numbers", mark)
    found.content = found.content.replace(f'"{mark}"'.encode(), rng.choice(NUMBERS).encode())
    return found


def deep_json(rng: random.Random) -> Hostile:
    """Nesting and width without end."""
    depth = rng.choice((50, 200, 900, 1100, 5000, 40_000))
    opening, closing = rng.choice((("[", "]"), ('{"and":[', "]}"), ('{"not":', "}"), ('{"a":', "}")))
    nested = opening * depth + "1" + closing * depth
    wide = _dump({"or": [{"price": {"lte": i}} for i in range(rng.choice((10, 3000)))]}).decode()
    filtered = '{"text": "x", "filter": ' + rng.choice((nested, wide)) + "}"
    method, path, _ = _endpoint(rng)
    return rng.choice(
        (
            Hostile("deep JSON", "POST", "/v1/search", filtered.encode()),
            Hostile("deep JSON", method, path, nested.encode()),
            Hostile("deep JSON", "POST", "/v1/products", f'[{{"product_id": "d", "attributes": {nested}}}]'.encode()),
        )
    )


def traversal(rng: random.Random) -> Hostile:
    """Paths that climb."""
    tail = rng.choice(PATHS)
    path = rng.choice(
        ("/v1/products/{}", "/v1/products/{}/image", "/v1/products/{}/similar", "/{}", "/v1/admin/keys/{}/rotate")
    )
    return Hostile("traversal", rng.choice(("GET", "GET", "POST")), path.format(tail), b"", {})


def injection(rng: random.Random) -> Hostile:
    """Other languages in the place of words."""
    word = rng.choice(INJECTIONS)
    if rng.random() < 0.3:
        part = rng.choice((word, f"attributes.{word}"))
        condition = rng.choice(
            ({part: "x"}, {"brand": word}, {part: {"lte": 1}}, {"brand": {word: 1}}, {"brand": [word] * 9})
        )
        return Hostile("injection", "POST", "/v1/search", _dump({"text": word, "filter": condition}))
    if rng.random() < 0.2:
        return Hostile("injection", "GET", f"/v1/products/{quote(word, safe='')}?limit={quote(word)}", b"", {})
    return _replaced(rng, "injection", word)


def unicode(rng: random.Random) -> Hostile:
    """Letters that are none, and bytes that are no letters."""
    word = rng.choice(UNICODE)
    if rng.random() < 0.2:
        body = b'{"text": "' + bytes(rng.randrange(128, 256) for _ in range(rng.randrange(1, 40))) + b'"}'
        return Hostile("unicode", "POST", "/v1/search", body)
    found = _replaced(rng, "unicode", word)
    if rng.random() < 0.3:
        found.content = json.dumps(json.loads(found.content), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return found


def content_types(rng: random.Random) -> Hostile:
    """A good body under a wrong name, or in another encoding."""
    method, path, body = _endpoint(rng)
    content = _dump(body)
    kind = rng.choice(
        ("text/plain", "text/html", "application/xml", "multipart/form-data", "multipart/form-data; boundary=x",
         "application/x-www-form-urlencoded", "application/json; charset=utf-16", "application/json; charset=nonsense",
         "application/octet-stream", "image/png", "", "é", "a" * 3000, "application/ld+json")
    )  # fmt: skip
    headers = {"Content-Type": kind.encode("utf-8").decode("latin-1")} if kind else {}
    if rng.random() < 0.3:
        content = rng.choice(
            (content.decode().encode("utf-16"), b"--x\r\n\r\n--x--", b"<a/>", b"a=1&b=2", b"", b"\0" * 99)
        )
    if rng.random() < 0.2:
        content, headers["Content-Encoding"] = (
            zlib.compress(b"[" * 10_000_000, 9),
            rng.choice(("gzip", "deflate", "br")),
        )
    return Hostile("content types", method, path, content, headers)


def _media(rng: random.Random, kind: str, image: bytes, sound: bytes) -> Hostile:
    """A picture or a sound, in a query or in a product."""
    name, data = rng.choice((("image", image), ("audio", sound)))
    text = base64.b64encode(data).decode()
    if rng.random() < 0.5:
        return Hostile(kind, "POST", "/v1/search", _dump({"text": "x", name: text}))
    product = {"product_id": "m", "images": [text]} if name == "image" else {"product_id": "m", "audio": text}
    return Hostile(kind, "POST", "/v1/products", _dump([product]))


def bombs(rng: random.Random) -> Hostile:
    """Small files that unpack to large ones, and headers that lie."""
    return _media(rng, "bombs", *hostile_media.bombs(rng))


def damaged(rng: random.Random) -> Hostile:
    """Good pictures and sounds, cut short or with bytes changed."""
    return _media(rng, "damaged media", *hostile_media.damaged(rng))


def headers(rng: random.Random) -> Hostile:
    """Headers, methods and queries out of the ordinary."""
    method, path, body = _endpoint(rng)
    odd = rng.choice(
        ({"Authorization": "Bearer " + "x" * 4000}, {"Authorization": "Basic Og=="}, {"X-API-Key": "frk_" + "0" * 76},
         {"traceparent": "00-" + "f" * 60}, {"X-Request-ID": "'\";--"}, {"Accept": "a" * 2000},
         {"Origin": "null"}, {"X-Forwarded-For": "::1, a"}, {"Expect": "100-continue"}, {"If-None-Match": '"' * 99},
         {"Range": "bytes=0-,-1"}, {"Host": "evil.example"}, {"Content-Length": "0"}, {"Cookie": "a=" + "b" * 3000})
    )  # fmt: skip
    found = Hostile("headers", method, path, _dump(body), {"Content-Type": JSON, **odd})
    if "Content-Length" in odd:
        found.content = b""
    if rng.random() < 0.4:
        found.method, found.content = rng.choice(("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "FOO", "GET")), b""
    if rng.random() < 0.3:
        query = rng.choice(
            ("limit=NaN", "limit=-1", "limit=" + "9" * 400, "limit=1&limit=x", "%00=%ff", "limit[]=1", "&&&=", "limit=")
        )
        found.method, found.path, found.content = "GET", f"/v1/products/p01/similar?{query}", b""
    return found


def random_bytes(rng: random.Random) -> Hostile:
    """Bodies that are nothing, or a good one cut short."""
    method, path, body = _endpoint(rng)
    whole = _dump(body)
    cut = whole[: rng.randrange(len(whole))]
    return Hostile(
        "random bytes", method, path, rng.choice((cut, rng.randbytes(rng.randrange(200)), b"", b"\0", whole + whole))
    )


KINDS: tuple[Callable[[random.Random], Hostile], ...] = (
    wrong_types, huge_numbers, deep_json, traversal, injection, unicode, content_types, bombs, damaged, headers,
    random_bytes,
)  # fmt: skip


def requests(count: int, seed: int) -> Iterator[Hostile]:
    """So many requests, of every kind in turn."""
    rng = random.Random(seed)
    for number in range(count):
        yield KINDS[number % len(KINDS)](rng)
