"""Hostile requests over real HTTP, every deployment in this process: no 500, no crash, no leak of a path or a trace.

The short run is part of the ordinary suite. `pytest -m prove` sends 6,600 requests and lets schemathesis try 150
examples of each kind on each endpoint of the OpenAPI document.
"""

import collections
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fuserank import config
from fuserank.store.database import Database
from fuserank.store.keys import SCOPES, make
from serve import exporter
from serve.app import store_url
from serve.keyring import Keyring
from serve.routes import create_app
from tests.serve import hostile
from tests.serve import shop as tiny_shop
from tests.serve.conftest import deploy, front
from tests.serve.test_live_service import replica
from tests.serve.test_live_service import service as real_service

ROOT = Path(__file__).resolve().parents[2]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
LEAKS = re.compile(
    "|".join(
        [
            *map(re.escape, (str(ROOT), sys.prefix, str(Path.home()), str(Path(sys.base_prefix)))),
            r"site-packages", r"Traceback", r'File \\?"', r"\.py\b", r"sqlalchemy", r"sqlite", r"pydantic",
            r"object at 0x", r"/proc/", r"root:x:", r"fuserank\.db",
        ]
    ),
    re.IGNORECASE,
)  # fmt: skip


class Service:
    """A running service: its URL, its key, its store's folder."""

    def __init__(self, url: str, key: str, root: Path):
        self.url, self.key, self.root = url, key, root
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=60, headers={"X-API-Key": key})

    def leaks(self, request: str, answer: str) -> list[str]:
        """What an answer tells of us that its sender has not told it."""
        found = [str(self.root)] if str(self.root) in answer else []
        return found + [leak for leak in set(LEAKS.findall(answer)) if leak not in request]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("hostile")
    experiment = tiny_shop.build_run(root)
    gateway = front(experiment, deploy(experiment))
    key, stored = make("all", SCOPES)
    database = Database(store_url(experiment))
    database.add_key(stored)
    guard = config.Guard(administration=True, requests_per_second=0)
    app = create_app(gateway, 2_000_000, "test", guard, Keyring(database, True))
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="critical", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "gather", lambda: "# no Ray here\n")
        yield Service(f"http://127.0.0.1:{port}", key, root)
    server.should_exit = True
    thread.join(30)


def attack(service: Service, count: int, seed: int) -> collections.Counter[tuple[str, int]]:
    """Send hostile requests; how often each kind was answered with each status. Every answer is looked at."""
    before = service.client.get("/v1/products/p05").json()
    seen: collections.Counter[tuple[str, int]] = collections.Counter()
    slowest = 0.0
    for number, request in enumerate(hostile.requests(count, seed)):
        headers = {name.encode(): value.encode("latin-1") for name, value in request.headers.items()}
        begin = time.perf_counter()
        answer = service.client.send(
            service.client.build_request(
                request.method, service.url + request.path, content=request.content, headers=headers
            )
        )
        slowest = max(slowest, time.perf_counter() - begin)
        shown = f"{request.method} {request.path[:200]} {request.headers} {request.content[:300]!r}"
        what = f"request {number} of seed {seed}, {request.kind}: {shown}"
        seen[request.kind, answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 504, f"{what}\n→ {answer.status_code} {answer.text}"
        sent = f"{request.path} {request.content.decode('utf-8', 'replace')} {request.headers}"
        assert not service.leaks(sent, answer.text), f"{what}\n→ {answer.text[:2000]}"
        if answer.status_code >= 400 and request.method != "HEAD" and answer.headers.get("x-request-id"):
            assert sorted(answer.json()["error"]) == ["code", "hint", "message", "request_id"], what
        if "x-request-id" not in answer.headers:  # the HTTP server itself refused, before there was a request
            assert answer.status_code in (400, 431), what
    assert slowest < 15, f"a request took {slowest:.1f} s"
    assert service.client.get("/v1/health/ready").status_code == 200
    assert len(service.client.post("/v1/search", json={"text": "red shoe", "limit": 3}).json()["hits"]) == 3
    assert service.client.get("/v1/products/p05").json() == before, "what nobody named is as it was"
    return seen


def test_hostile_requests_are_answered_politely(service: Service):
    seen = attack(service, 330, seed=1)
    kinds = {kind for kind, _ in seen}
    assert len(kinds) == len(hostile.KINDS)
    refused = sum(count for (_, status), count in seen.items() if status >= 400)
    assert refused > 150, "they are hostile indeed"


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_thousands_of_hostile_requests(service: Service):
    for seed in range(100, 106):
        print(seed, sorted(attack(service, 1100, seed).items()))


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_hostile_requests_to_the_whole_service_kill_nothing(tmp_path: Path):
    """Through HAProxy and Ray Serve: every replica is the process it was before."""
    settings = {"serve.guard.administration": True, "serve.guard.requests_per_second": 0.0}
    experiment = config.update(tiny_shop.build_run(tmp_path), settings)
    config.dump(experiment, tmp_path / "tiny.yaml")
    key, stored = make("all", SCOPES)
    with Database(store_url(experiment)) as database:
        database.add_key(stored)
    names = ("text-encoder", "image-encoder", "retriever", "reranker", "feedback", "products", "gateway")
    with real_service(tmp_path / "tiny.yaml", tmp_path / "errors") as (http, pid):
        before = [replica(name, pid) for name in names]
        running = Service(str(http.base_url).rstrip("/"), key, tmp_path)
        print(sorted(attack(running, 2200, seed=300).items()))
        assert [replica(name, pid) for name in names] == before


def test_what_counts_as_a_leak_is_found(service: Service):
    for text in (f"no file {service.root}/x", 'File "/srv/a.py", line 3', "Traceback (most recent", "sqlite3.Error"):
        assert service.leaks("", text)
    assert not service.leaks("GET /v1/products/a.py", "There is no product 'a.py'.")


def explore(service: Service, examples: int) -> dict[str, int]:
    """Let schemathesis try each operation with good and with bad data; how many requests each was sent."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    sent: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        sent[operation.label] = sum(_try(service, operation, mode, examples) for mode in GenerationMode)
    return sent


def _try(service: Service, operation: Any, mode: GenerationMode, examples: int) -> int:
    sent = 0

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        nonlocal sent
        sent += 1
        answer = case.call(base_url=service.url, headers={"X-API-Key": service.key})
        late = answer.status_code == 504 and "deadline_ms" in (case.body or ())  # it asked for it
        case.validate_response(answer, checks=[c for c in CHECKS if not (late and c is not_a_server_error)])
        assert not service.leaks(f"{case.path_parameters} {case.query} {case.body!r}", answer.text)

    try:
        check()
    except Unsatisfiable:  # nothing can be wrong with an operation that takes nothing
        assert sent == 0
    return sent


def test_schemathesis_finds_nothing_in_a_short_look(service: Service):
    sent = explore(service, 6)
    assert len(sent) >= 16, "every operation of the document was tried"


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_schemathesis_finds_nothing(service: Service):
    sent = explore(service, 150)
    print(sent)
    assert sum(sent.values()) > 3000
