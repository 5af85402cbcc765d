"""API keys: who may ask what. Reads and writes API_KEYS, which never holds a key itself, only its SHA-256.

A key is `frk_‹id›_‹secret›`: 12 hex digits to find it by and 64 that are 256 random bits. A fast hash is enough for
those. Slow ones (bcrypt, argon2) protect words that people choose and others can guess from a list; 2^256 equally
likely secrets cannot be guessed at any speed, and as every request is checked, a slow hash would only let anybody who
sends nonsense burn the server's time.
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import sqlalchemy as sa

from fuserank.errors import InputError
from fuserank.store.tables import API_KEYS

Scope = Literal["search", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_FORM = re.compile(r"frk_([0-9a-f]{12})_[0-9a-f]{64}")
_ANY = re.compile(r"frk_([0-9a-f]{12})_[0-9a-f]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODY = hashlib.sha256(b"").hexdigest()  # compared with where there is no such key, so that both take as long


@dataclass(frozen=True)
class ApiKey:
    """What is stored of a key."""

    id: str
    name: str  # whose it is; rotation keeps it
    scopes: tuple[Scope, ...]
    digest: str = field(repr=False)  # hex SHA-256 of the whole key
    created: int  # ms since 1970
    expires: int | None = None  # ms since 1970; from then on it is refused. Revoking sets it to now
    rate: float | None = None  # requests a second; None: what the service allows everybody

    def active(self, now: int | None = None) -> bool:
        """Whether it opens anything (at `now`, ms since 1970)."""
        return self.expires is None or (now or milliseconds()) < self.expires


def milliseconds() -> int:
    """Now, in ms since 1970."""
    return time.time_ns() // 1_000_000


def make(
    name: str, scopes: Iterable[str], seconds: float | None = None, rate: float | None = None
) -> tuple[str, ApiKey]:
    """A new key, which is shown this once, and what to store of it.

    Args:
        seconds: how long it is valid; None: until it is revoked.
        rate: requests a second.

    Raises:
        InputError: a name or a scope that cannot be one, or a number that is not positive.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name[:80]!r} cannot name a key.", "Use letters, digits, '.', '_' and '-', at most 64.")
    wanted = set(scopes)
    if not wanted or not wanted <= set(SCOPES):
        raise InputError(f"scopes {sorted(wanted)} are not all known.", f"Give one or more of {', '.join(SCOPES)}.")
    for what, value in (("validity", seconds), ("rate", rate)):
        if value is not None and not 0 < value < 1e10:  # NaN is not between, either
            raise InputError(f"the {what} of a key must be a positive number.", "Leave it out for none.")
    identity = secrets.token_hex(6)
    key = f"frk_{identity}_{secrets.token_hex(32)}"
    created = milliseconds()
    expires = None if seconds is None else created + round(1000 * seconds)
    ordered: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope in wanted)
    return key, ApiKey(identity, name, ordered, digest(key), created, expires, rate)


def successor(identity: str, known: Iterable[ApiKey]) -> tuple[str, ApiKey]:
    """A new key in the place of another: the same name, scopes and rate, and as long a life.

    Raises:
        InputError: there is no such key, or it is valid no longer.
    """
    old = next((key for key in known if key.id == identity and key.active()), None)
    if old is None:
        raise InputError(f"there is no valid key {identity[:80]!r}.", "`fuserank keys list` shows them.")
    life = None if old.expires is None else (old.expires - old.created) / 1000
    return make(old.name, old.scopes, life, old.rate)


def digest(key: str) -> str:
    """What is stored of a key: hex SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def find(key: str, known: Mapping[str, ApiKey], now: int | None = None) -> ApiKey | None:
    """The active key that was presented, None for any other. Takes as long for a wrong secret as for an unknown id.

    Args:
        known: id → what is stored.
    """
    form = _FORM.fullmatch(key)
    stored = known.get(form[1]) if form else None
    same = hmac.compare_digest(digest(key), stored.digest if stored else _NOBODY)
    return stored if same and stored is not None and stored.active(now) else None


def redact(text: str) -> str:
    """The text with the secret of every key in it taken out; its id stays."""
    return _ANY.sub(r"frk_\1_…", text)


def add(connection: sa.Connection, key: ApiKey) -> None:
    """Store a new key."""
    row = {column.name: getattr(key, column.name) for column in API_KEYS.columns}
    connection.execute(sa.insert(API_KEYS), row | {"scopes": json.dumps(key.scopes)})


def expire(connection: sa.Connection, identity: str, at: int) -> None:
    """End a key at `at` (ms since 1970), or when it would have ended if that is sooner.

    Raises:
        InputError: there is no such key.
    """
    sooner = sa.or_(API_KEYS.c.expires.is_(None), API_KEYS.c.expires > at)
    connection.execute(sa.update(API_KEYS).where(API_KEYS.c.id == identity, sooner).values(expires=at))
    if connection.execute(sa.select(API_KEYS.c.id).where(API_KEYS.c.id == identity)).first() is None:
        raise InputError(f"there is no key {identity[:80]!r}.", "`fuserank keys list` shows them.")


def rotate(connection: sa.Connection, old: str, new: ApiKey, until: int) -> None:
    """Store a key in the place of another, which stays valid until `until` (ms since 1970). Raises InputError."""
    expire(connection, old, until)
    add(connection, new)


def read(connection: sa.Connection) -> list[ApiKey]:
    """All there ever were, oldest first."""
    query = sa.select(API_KEYS).order_by(API_KEYS.c.created, API_KEYS.c.id)
    rows = connection.execute(query).mappings()
    return [ApiKey(**{**row, "scopes": tuple(json.loads(row["scopes"]))}) for row in rows]
