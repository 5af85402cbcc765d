"""API keys in every kind of database: only hashes are kept, a replaced key ends on time, bad requests are refused."""

import hashlib
import math

import pytest
import sqlalchemy as sa

from fuserank.errors import InputError
from fuserank.store.database import Database
from fuserank.store.engine import open_engine
from fuserank.store.keys import find, make, milliseconds, redact, successor


def test_a_key_is_kept_as_its_hash_alone(any_database: Database, any_url: str):
    key, stored = make("web", ["write", "search"], seconds=60, rate=2.5)
    any_database.add_key(stored)
    assert any_database.api_keys() == [stored]
    assert stored.scopes == ("search", "write")
    assert stored.digest == hashlib.sha256(key.encode()).hexdigest()
    assert stored.digest not in repr(stored)
    with open_engine(any_url).connect() as connection:
        everything = str(connection.execute(sa.text("SELECT * FROM api_keys")).all())
    assert stored.id in everything
    assert key.rpartition("_")[2] not in everything


def test_only_the_very_key_is_found_while_it_is_valid():
    key, stored = make("web", ["search"], seconds=60)
    other, _ = make("web", ["search"])
    known = {stored.id: stored}
    assert find(key, known) == stored
    assert find(other, known) is None
    assert find(f"frk_{stored.id}_{other.rpartition('_')[2]}", known) is None
    assert find(key, known, stored.created + 59_999) == stored
    assert find(key, known, stored.created + 60_000) is None
    assert len({make("web", ["search"])[0] for _ in range(100)}) == 100


def test_rotation_keeps_what_a_key_may_and_ends_the_old_one(any_database: Database):
    _, old = make("web", ["search"], seconds=1000, rate=3)
    any_database.add_key(old)
    _, new = successor(old.id, any_database.api_keys())
    assert (new.name, new.scopes, new.rate, new.expires - new.created) == ("web", ("search",), 3, 1_000_000)
    until = milliseconds() + 5000
    any_database.rotate_key(old.id, new, until)
    any_database.rotate_key(old.id, make("more", ["search"])[1], until + 9999)
    ends = {key.id: key.expires for key in any_database.api_keys()}
    assert ends[old.id] == until, "a later rotation does not lengthen a life"
    any_database.revoke_key(old.id)
    with pytest.raises(InputError, match=f"no valid key '{old.id}'"):
        successor(old.id, any_database.api_keys())
    with pytest.raises(InputError, match="no key 'nobody'"):
        any_database.rotate_key("nobody", make("lost", ["search"])[1], until)
    assert "lost" not in {key.name for key in any_database.api_keys()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", ["search"]), "cannot name"),
        (("a b", ["search"]), "cannot name"),
        (("a" * 65, ["search"]), "cannot name"),
        (("a", []), "scopes"),
        (("a", ["root"]), "scopes"),
        (("a", ["search"], 0), "validity"),
        (("a", ["search"], math.nan), "validity"),
        (("a", ["search"], None, -1), "rate"),
        (("a", ["search"], None, math.inf), "rate"),
    ],
)
def test_keys_that_cannot_be(arguments: tuple, words: str):
    with pytest.raises(InputError, match=words):
        make(*arguments)


def test_secrets_are_taken_out_of_texts():
    key, stored = make("web", ["search"])
    text = redact(f"Authorization: Bearer {key}, and {key[:40]} cut short")
    assert text == f"Authorization: Bearer frk_{stored.id}_…, and frk_{stored.id}_… cut short"
