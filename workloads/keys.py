"""`fuserank keys`: makes, shows, rotates and revokes the API keys of a run's service. Reads and writes the store.

A running service notices within a second. Standard output gets the new key and nothing else, so that it can be piped
into a secret store; what a person wants to know goes to standard error.
"""

import sys
import time

from fuserank.config import Experiment
from fuserank.store.database import Database, store_url
from fuserank.store.keys import ApiKey, make, milliseconds, successor


def create(experiment: Experiment, name: str, scopes: list[str], days: float | None, rate: float | None) -> str:
    """Store a new key and print it, this once. Raises InputError, StoreError."""
    key, stored = make(name, scopes, None if days is None else 86_400 * days, rate)
    with _database(experiment) as database:
        database.add_key(stored)
    _tell(key, stored)
    return key


def rotate(experiment: Experiment, identity: str, grace_hours: float) -> str:
    """Store and print a key in the place of another, which stays valid for a while. Raises InputError, StoreError."""
    with _database(experiment) as database:
        key, stored = successor(identity, database.api_keys())
        until = milliseconds() + round(3_600_000 * max(0.0, grace_hours))
        database.rotate_key(identity, stored, until)
    _tell(key, stored)
    print(f"{identity} stays valid until {_moment(until)} at most.", file=sys.stderr)
    return key


def revoke(experiment: Experiment, identity: str) -> None:
    """End a key now. Raises InputError, StoreError."""
    with _database(experiment) as database:
        database.revoke_key(identity)
    print(f"{identity} is revoked; running gateways refuse it within a second.", file=sys.stderr)


def show(experiment: Experiment) -> list[ApiKey]:
    """Print a line a key. Raises StoreError."""
    with _database(experiment) as database:
        found = database.api_keys()
    for key in found:
        until = "no end" if key.expires is None else _moment(key.expires)
        rate = "" if key.rate is None else f"{key.rate:g}/s"
        state = "valid" if key.active() else "ended"
        print("\t".join((key.id, key.name, ",".join(key.scopes), state, f"{_moment(key.created)} – {until}", rate)))
    return found


def _database(experiment: Experiment) -> Database:
    return Database(store_url(experiment))


def _tell(key: str, stored: ApiKey) -> None:
    print(key)
    print(
        f"key {stored.id} of {stored.name}, for {', '.join(stored.scopes)}. It is shown this once; keep it secret.",
        file=sys.stderr,
    )


def _moment(when: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when / 1000))
