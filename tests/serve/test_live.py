"""Live changes through every deployment, in this process: what is sent is found, shown, filtered on, and survives."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from serve.gateway import Gateway
from serve.routes import create_app
from tests.serve import shop
from tests.serve.conftest import deploy, front

NEW = {"product_id": "new", "title": "Violet umbrella", "brand": "Rain & Co", "category": ["goods", "umbrella"],
       "price": 17.5, "currency": "EUR", "in_stock": True, "attributes": {"colour": "violet"}}  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return shop.build_run(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def parts(live: Experiment) -> dict[str, Any]:
    return deploy(live)


@pytest.fixture
def store(live: Experiment, parts: dict[str, Any]) -> Iterator[TestClient]:
    gateway: Gateway = front(live, parts)
    with TestClient(create_app(gateway, 200_000, "test"), raise_server_exceptions=False) as client:
        yield client
    gateway.documents.close()  # type: ignore[union-attr]


def send(store: TestClient, method: str, items: Any, path: str = "/v1/products") -> list[dict[str, Any]]:
    answer = store.request(method, path, json=items)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def shown(store: TestClient, **query: Any) -> list[str]:
    return [hit["product_id"] for hit in hits(store, **query)]


def hits(store: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = store.post("/v1/search", json={"limit": 50, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def seen(parts: dict[str, Any], items: list[dict[str, Any]]) -> None:
    """Wait until the retriever shows the changes."""
    last = max(item["seq"] for item in items)
    deadline = time.monotonic() + 20
    while parts["retriever"].live.catalogue.seq < last:
        assert time.monotonic() < deadline, "the change was never shown"
        time.sleep(0.01)


def test_an_upsert_is_found_and_shown(store: TestClient, parts: dict[str, Any]):
    assert shown(store, text="umbrella", filter={"attributes.colour": "red"}) != []
    items = send(store, "POST", [NEW])
    assert items[0]["status"] == "accepted"
    assert store.get("/v1/products/new").json()["title"] == "Violet umbrella"
    seen(parts, items)
    found = hits(store, text="violet umbrella", filter={"category": "umbrella"}, explain=True)
    assert [hit["product_id"] for hit in found] == ["new"]
    assert found[0]["price"] == {"amount": 17.5, "max": None, "currency": "EUR"}
    assert found[0]["explanation"]["lexical_score"] > 0
    assert set(found[0]["explanation"]["modality_scores"]) == {"text", "price"}
