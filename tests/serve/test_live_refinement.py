"""Counts, groups, mended words, marks and suggestions of a catalogue that changes, through every deployment."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve.routes import create_app
from tests.serve import shop
from tests.serve.conftest import deploy, front
from tests.serve.test_live import seen, send


@pytest.fixture
def parts(tmp_path: Any) -> Iterator[dict[str, Any]]:
    experiment = shop.build_run(tmp_path)
    made = {"experiment": experiment, **deploy(experiment)}
    yield made
    made["retriever"].held.stop()


@pytest.fixture
def store(parts: dict[str, Any]) -> Iterator[TestClient]:
    gateway = front(parts["experiment"], parts)
    with TestClient(create_app(gateway, 200_000, "test"), raise_server_exceptions=False) as client:
        yield client
    gateway.held.stop()


def test_counts_groups_words_and_suggestions_follow_changes(store: TestClient, parts: dict[str, Any]):
    def suggested(text: str) -> list[dict[str, Any]]:
        answer = store.get("/v1/suggest", params={"q": text})
        assert answer.status_code == 200, answer.text
        return answer.json()["suggestions"]

    def search(**query: Any) -> dict[str, Any]:
        body = {"text": "kimomo", "filter": {"attributes.cut": "wide"}, "group_by": "parent_id", "limit": 2}
        answer = store.post(
            "/v1/search", json=body | {"facets": ["attributes.cut", "brand"], "highlight": True} | query
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert suggested("kim") == []
    assert store.post("/v1/search", json={"text": "shoe", "facets": ["attributes.cut"]}).status_code == 422
    family = [{"product_id": f"k{i}", "parent_id": "k" if i < 3 else None, "title": "Silk kimono", "brand": f"B{i % 2}",
               "description": "A wide & soft kimono. " * 40, "price": 9 - i, "attributes": {"cut": "wide"}}
              for i in range(4)]  # fmt: skip
    items = send(store, "POST", family)
    assert suggested("silk ki") == [{"text": "Silk kimono", "count": 4}]
    seen(parts, items)
    found = search(sort=[{"price": "asc"}])
    assert (found["corrected"], found["total"], found["total_relation"]) == ("kimono", 4, "eq")
    assert found["total_groups"] == 2
    assert [(hit["product_id"], hit["group"]) for hit in found["hits"]] == [
        ("k3", {"size": 1, "product_ids": ["k3"]}),
        ("k2", {"size": 3, "product_ids": ["k2", "k1", "k0"]}),
    ]
    assert found["facets"]["brand"] == {
        "values": [{"value": "B0", "count": 2}, {"value": "B1", "count": 2}],
        "other": 0,
    }
    marks = found["hits"][0]["highlights"]
    assert marks["title"] == "Silk <mark>kimono</mark>"
    assert marks["description"].startswith("A wide &amp; soft <mark>kimono</mark>. ")
    assert search(sort=[{"price": "asc"}], offset=1)["hits"][0]["product_id"] == "k2"
    relevant = search()
    assert {hit["product_id"] for hit in relevant["hits"]} >= {"k3"}
    assert sorted(hit["group"]["size"] for hit in relevant["hits"]) == [1, 3]
    changes = [{"product_id": "k2", "attributes": {"cut": None}}, {"product_id": "k1", "title": "Robe"}]
    seen(parts, send(store, "PATCH", changes) + send(store, "POST", {"ids": ["k3"]}, "/v1/products/delete"))
    found = search(sort=[{"price": "asc"}])
    assert [hit["group"]["product_ids"] for hit in found["hits"]] == [["k1", "k0"]]
    assert found["facets"]["attributes.cut"]["values"] == [{"value": "wide", "count": 2}]
    assert suggested("silk ki") == [{"text": "Silk kimono", "count": 2}]
    assert suggested("rob") == [{"text": "Robe", "count": 1}]
    seen(parts, send(store, "POST", {"ids": ["k0", "k1", "k2"]}, "/v1/products/delete"))
    assert suggested("silk ki") == []
