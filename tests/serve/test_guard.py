"""Keys, scopes and rates through HTTP: who gets in, who does not, and what the log says of it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.errors import ConfigError
from fuserank.store.database import Database
from fuserank.store.erasures import Erased
from fuserank.store.keys import make, milliseconds, successor
from serve.gateway import Gateway
from serve.guard import DOCUMENTATION, need_of
from serve.keyring import Keyring
from serve.routes import create_app
from serve.streams import Streams

SEARCH = ("POST", "/v1/search", {"json": {"text": "red"}})
WRITE = ("POST", "/v1/products/delete", {"json": {"ids": ["nobody"]}})


@pytest.fixture
def database(tmp_path: Any) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path}/keys.db") as database:
        yield database


@pytest.fixture
def open_service(gateway: Gateway, database: Database) -> Callable[..., Any]:
    """Opens an app over the database of keys; keys count at once after `reread`."""

    @contextmanager
    def serve(always: bool = False, **settings: Any) -> Iterator[tuple[TestClient, Callable[[], None]]]:
        keyring = Keyring(database, always, poll_seconds=3600)
        app = create_app(gateway, 200_000, "test", config.Guard(**settings), keyring)
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client, keyring.read

    return serve


def new_key(database: Database, *scopes: str, **options: Any) -> str:
    key, stored = make(options.pop("name", "-".join(scopes)), scopes, **options)
    database.add_key(stored)
    return key


def ask(client: TestClient, what: tuple[str, str, dict], key: str | None = None) -> Any:
    method, path, rest = what
    return client.request(method, path, headers={"Authorization": f"Bearer {key}"} if key else {}, **rest)


def test_no_key_401_a_key_without_the_scope_403_and_both_are_logged(
    open_service: Any, database: Database, caplog: pytest.LogCaptureFixture
):
    searching = new_key(database, "search")
    with open_service() as (client, _), caplog.at_level(logging.WARNING, "fuserank.serve"):
        bare, poor, rich = ask(client, WRITE), ask(client, WRITE, searching), ask(client, SEARCH, searching)
    assert (bare.status_code, bare.json()["error"]["code"]) == (401, "no_key")
    assert bare.headers["www-authenticate"] == "Bearer"
    assert (poor.status_code, poor.json()["error"]["code"]) == (403, "missing_scope")
    assert rich.status_code == 200
    logged = {record.request_id: record for record in caplog.records if hasattr(record, "request_id")}
    first, second = (logged[answer.json()["error"]["request_id"]] for answer in (bare, poor))
    assert (first.code, first.key) == ("no_key", None)
    assert (second.code, second.key) == ("missing_scope", searching.split("_")[1])
    assert "/v1/products/delete" in first.getMessage()
    secret = searching.split("_")[2]
    assert all(secret not in str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key.upper(),
        lambda key: "frk_000000000000_" + key.split("_")[2],
        lambda key: "Bearer",
        lambda key: "\xff\xfe",
        lambda key: "x" * 7000,
    ],
)
def test_anything_but_the_key_is_refused(open_service: Any, database: Database, spoil: Callable[[str], str]):
    key = new_key(database, "search")
    with open_service() as (client, _):
        assert ask(client, SEARCH, key).status_code == 200
        wrong = client.post("/v1/search", json={"text": "x"}, headers={b"X-API-Key": spoil(key).encode("latin-1")})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "bad_key")
        assert client.post("/v1/search", json={"text": "x"}, headers={"X-API-Key": key}).status_code == 200
        assert client.post(f"/v1/search?key={key}", json={"text": "x"}).status_code == 401  # addresses end up in logs


def test_rotation_overlaps_and_revoking_ends(open_service: Any, database: Database):
    old = new_key(database, "search", name="web", rate=7.0)
    identity = old.split("_")[1]
    with open_service() as (client, reread):
        new, stored = successor(identity, database.api_keys())
        assert (stored.name, stored.scopes, stored.rate) == ("web", ("search",), 7.0)
        database.rotate_key(identity, stored, milliseconds() + 3_600_000)
        reread()
        assert [ask(client, SEARCH, key).status_code for key in (old, new)] == [200, 200]
        database.rotate_key(identity, make("other", ["search"])[1], milliseconds() - 1)
        reread()
        assert [ask(client, SEARCH, key).status_code for key in (old, new)] == [401, 200]
        for key in database.api_keys():
            database.revoke_key(key.id)
        reread()
        assert ask(client, SEARCH, new).status_code == 401
        assert ask(client, SEARCH).status_code == 401, "with all keys revoked nobody gets in"


def test_without_keys_loopback_is_open_and_the_first_key_closes_it(open_service: Any, database: Database):
    with open_service() as (client, reread):
        assert ask(client, SEARCH).status_code == ask(client, WRITE).status_code == 200
        new_key(database, "admin")
        reread()
        assert ask(client, SEARCH).status_code == ask(client, WRITE).status_code == 401
        for path in ("/v1/health/live", "/", "/store.js", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path


def test_what_others_can_reach_is_closed_without_any_key(open_service: Any):
    with open_service(always=True) as (client, _):
        assert ask(client, SEARCH).status_code == 401
        assert client.get("/v1/health/ready").status_code == 200


async def nobody(user_id: str) -> Erased:
    return Erased(0, 0)


def test_every_route_says_whom_it_serves(open_service: Any, gateway: Gateway, database: Database):
    expected = {
        "search": {
            "POST /v1/search", "GET /v1/suggest", "GET /v1/recommend/stream",
            "POST /v1/recommend", "POST /v1/events", "GET /v1/generations",
            "GET /v1/products/{product_id:path}", "GET /v1/products/{product_id:path}/similar",
            "GET /v1/products/{product_id:path}/image", "POST /v1/rank", "POST /v1/embed",
        },
        "write": {
            "POST /v1/products", "PATCH /v1/products", "POST /v1/products/delete", "DELETE /v1/users/{user_id:path}",
        },
        "admin": {
            "GET /metrics", "GET /v1/admin/keys", "POST /v1/admin/keys", "POST /v1/admin/keys/{key_id}/rotate",
            "POST /v1/admin/keys/{key_id}/revoke", "POST /v1/generations/{generation}/activate",
            "GET /v1/admin/policy", "POST /v1/admin/policy",
        },
        None: {"GET /v1/health/live", "GET /v1/health/ready", "GET /", "GET /{page}"},
    }  # fmt: skip
    keyring = Keyring(database, True, 3600)
    streams = Streams(gateway.recommend, database.event_marks, 1)
    app = create_app(gateway, 1000, "test", config.Guard(administration=True), keyring, Path("index"), nobody, streams)
    found: dict[Any, set[str]] = {scope: set() for scope in expected}
    for route in app.routes:
        if isinstance(route, APIRoute):
            assert hasattr(route.endpoint, "need"), f"{route.path} does not say whom it serves"
            found[need_of(route).scope] |= {f"{method} {route.path}" for method in route.methods}
        else:
            assert route.path in DOCUMENTATION  # type: ignore[attr-defined]
    assert found == expected
    described = app.openapi()["paths"]
    assert described["/v1/products"]["post"]["security"] == [{"bearer": []}, {"header": []}, {}]
    assert "401" in described["/v1/products"]["post"]["responses"]
    assert "security" not in described["/v1/health/live"]["get"]
    keyring.close()


def test_spellings_of_a_path_lead_nowhere_else(open_service: Any, database: Database):
    key = new_key(database, "search")
    with open_service() as (client, _):
        for path in (
            "/v1/products/delete/",
            "/v1//products",
            "/V1/products",
            "/v1/products/../products",
            "//v1/products",
        ):
            answer = client.post(path, json=[], headers={"X-API-Key": key}, follow_redirects=True)
            assert answer.status_code in (403, 404, 405), path


def test_a_key_may_send_a_burst_and_then_its_rate(open_service: Any, database: Database):
    slow, fast = new_key(database, "search", name="slow", rate=0.5), new_key(database, "search", name="fast")
    with open_service(burst=3) as (client, _):
        codes = [ask(client, SEARCH, slow).status_code for _ in range(4)]
        refused = ask(client, SEARCH, slow)
        assert codes == [200, 200, 200, 429]
        assert refused.json()["error"]["code"] == "rate_limited"
        assert refused.headers["retry-after"] in ("1", "2")
        assert ask(client, SEARCH, fast).status_code == 200


def test_keys_of_one_name_share_a_rate(open_service: Any, database: Database):
    first, second = (new_key(database, "search", name="web", rate=0.01) for _ in range(2))
    with open_service(burst=1) as (client, _):
        assert [ask(client, SEARCH, key).status_code for key in (first, second)] == [200, 429]


def test_an_endpoint_that_does_not_say_whom_it_serves_serves_administrators(gateway: Gateway, database: Database):
    keyring = Keyring(database, False, 3600)
    app = create_app(gateway, 1000, "test", keyring=keyring)

    @app.get("/v1/forgotten/thing")
    async def forgotten() -> dict[str, str]:
        return {"secret": "plans"}

    with TestClient(app) as client:
        assert client.get("/v1/forgotten/thing").status_code == 401
        good = {"X-API-Key": new_key(database, "admin")}, {"X-API-Key": new_key(database, "search", "write")}
        keyring.read()
        assert [client.get("/v1/forgotten/thing", headers=key).status_code for key in good] == [200, 403]


def test_a_database_that_is_gone_keeps_known_keys(database: Database, monkeypatch: pytest.MonkeyPatch):
    from time import sleep

    from fuserank.errors import StoreError

    key = new_key(database, "search")
    keyring = Keyring(database, False, poll_seconds=0.01)

    def gone() -> Any:
        raise StoreError("gone")

    monkeypatch.setattr(database, "api_keys", gone)
    sleep(0.1)
    assert keyring.find(key) is not None
    monkeypatch.undo()
    database.revoke_key(key.split("_")[1])
    for _ in range(200):
        if keyring.find(key) is None:
            break
        sleep(0.01)
    assert keyring.find(key) is None
    keyring.close()


def test_administration_is_off_unless_switched_on_and_always_wants_its_key(open_service: Any, database: Database):
    with open_service() as (client, _):
        assert client.get("/v1/admin/keys").status_code == 404
    with open_service(administration=True) as (client, reread):
        assert client.get("/v1/admin/keys").status_code == 401, "even where searches need no key"
        admin = {"X-API-Key": new_key(database, "admin")}
        reread()
        made = client.post("/v1/admin/keys", json={"name": "web", "scopes": ["search"]}, headers=admin).json()
        reread()
        assert ask(client, SEARCH, made["key"]).status_code == 200
        assert client.get("/v1/admin/keys", headers={"X-API-Key": made["key"]}).status_code == 403
        turned = client.post(f"/v1/admin/keys/{made['id']}/rotate", json={"grace_seconds": 0}, headers=admin).json()
        reread()
        assert [ask(client, SEARCH, key).status_code for key in (made["key"], turned["key"])] == [401, 200]
        listed = client.post(f"/v1/admin/keys/{turned['id']}/revoke", headers=admin).json()["keys"]
        assert {key["state"] for key in listed if key["name"] == "web"} == {"ended"}
        assert made["key"].split("_")[2] not in client.get("/v1/admin/keys", headers=admin).text
        unknown = client.post("/v1/admin/keys/000000000000/revoke", headers=admin)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (422, "bad_input")


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "ftp://a.b", "https://a.b/c", "null", ""])
def test_what_is_no_origin_is_refused_in_the_config(origin: str):
    with pytest.raises(ConfigError, match="is no origin"):
        config.validate({"serve": {"guard": {"origins": [origin]}}})


def test_headers_of_every_answer(open_service: Any):
    with open_service(origins=["https://shop.example"]) as (client, _):
        for path in ("/v1/health/live", "/", "/docs", "/nowhere", "/v1/products/p01"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["x-frame-options"] == "DENY"
            assert "content-security-policy" in headers
            assert len(headers["x-request-id"]) == 32
        assert "script-src 'self'" in client.get("/").headers["content-security-policy"]
        preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        allowed = client.options("/v1/search", headers=preflight | {"Access-Control-Request-Headers": "authorization"})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.get("/v1/health/live", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
    with open_service() as (client, _):
        assert "access-control-allow-origin" not in client.get("/v1/health/live", headers=preflight).headers
