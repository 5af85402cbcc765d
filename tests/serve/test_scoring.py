"""Rank and embed: the same scores as a search, for products of the catalogue and for those that are in none."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from fuserank.retrieval.generation import open_generation
from serve.app import generation_folder
from serve.routes import create_app
from tests.serve import conftest
from tests.serve.test_gateway import picture
from tests.serve.test_personal import served  # noqa: F401  # a run whose reranker was kept, with random weights

Run = tuple[Any, dict[str, Any], Path]


@pytest.fixture
def client(served: Run) -> Iterator[TestClient]:  # noqa: F811
    experiment, deployments, _ = served
    gateway = conftest.front(experiment, deployments)
    with TestClient(create_app(gateway, 400_000, "test"), raise_server_exceptions=False) as client:
        yield client
    gateway.held.stop()


def post(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def order(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(hit["product_id"], pytest.approx(hit["score"], abs=1e-5)) for hit in answer["hits"]]


def sent(shop: ModuleType, media: Path, number: int, identity: str) -> dict[str, Any]:
    """A product of the shop as a client would send it, under another id."""
    row = shop.products(media).to_pylist()[number]
    product = {name: row[name] for name in ("title", "brand", "category", "in_stock", "rating", "review_count")}
    product |= {"product_id": identity, "attributes": dict(row["attributes"]), "currency": row["currency"]}
    product["price"] = None if row["price"] is None else str(row["price"])
    if row["images"]:
        data = (media / row["images"][0][:2] / row["images"][0]).read_bytes()
        product["images"] = [base64.b64encode(data).decode()]
    return product


@pytest.mark.parametrize(
    "query", [{"text": "red shoe"}, {"image": True}, {"text": "blue hat", "image": True, "weights": {"image": 0.5}}]
)
@pytest.mark.parametrize("user", [None, "ranking"])
def test_rank_scores_and_orders_as_search(client: TestClient, shop: ModuleType, query: dict, user: str | None):
    query = query | ({"image": picture(shop)} if "image" in query else {})
    events = [{"event_id": f"k{n}", "type": "click", "product_id": f"p0{n}", "user_id": "ranking"} for n in (3, 5, 8)]
    post_events = client.post("/v1/events", json=events)
    assert post_events.status_code == 200
    who = {"user_id": user} if user else {}
    found = post(client, "search", {**query, **who, "limit": 20})
    assert len(found["hits"]) == 20
    chosen = [hit["product_id"] for hit in found["hits"]]
    shuffled = [str(one) for one in np.random.default_rng(0).permutation(chosen)]
    ranked = post(client, "rank", {"query": query, **who, "products": shuffled})
    assert [(hit["product_id"], hit["score"]) for hit in ranked["hits"]] == order(found)
    assert [shuffled[hit["index"]] for hit in ranked["hits"]] == chosen
    some = shuffled[:4]
    few = post(client, "rank", {"query": query, **who, "products": some})
    expected = [one for one in order(found) if one[0] in some]
    assert [(hit["product_id"], hit["score"]) for hit in few["hits"]] == expected, "whatever else is given"
    assert few["generation"] == found["generation"]
    assert few["degraded"] == few["unknown"] == []
    assert list(few["stages"]) == ["introduce", "queue", "encode", "retrieve", "rerank", "render"]


@pytest.mark.parametrize("query", [{"text": "red shoe"}, {"text": "black watch", "image": True}])
def test_whole_products_score_as_if_they_were_in_the_catalogue(
    client: TestClient, shop: ModuleType, tmp_path: Path, query: dict
):
    query = query | ({"image": picture(shop)} if "image" in query else {})
    numbers = (0, 4, 9, 13, 14, 22)  # 9 has no picture, 0 and 14 no price
    whole = [sent(shop, tmp_path, number, f"new{number}") for number in numbers]
    ranked = post(client, "rank", {"query": query, "products": [*whole, *(f"p{number:02d}" for number in numbers)]})
    scores = {hit["product_id"]: hit["score"] for hit in ranked["hits"]}
    assert len(scores) == 12
    for number in numbers:  # the reranker knows of popularity by id, and there is none in this run
        assert scores[f"new{number}"] == pytest.approx(scores[f"p{number:02d}"], abs=5e-3), number
    assert len({round(score, 2) for score in scores.values()}) > 4
    assert client.get("/v1/products/new4").status_code == 404, "nothing was stored"


def test_a_users_taste_counts_for_whole_products_too(client: TestClient, shop: ModuleType, tmp_path: Path):
    events = [{"event_id": f"t{n}", "type": "click", "product_id": f"p{n:02d}", "user_id": "taste"} for n in (1, 5, 9)]
    assert client.post("/v1/events", json=events).status_code == 200
    whole = [sent(shop, tmp_path, number, f"new{number}") for number in (4, 13, 22)]
    body = {"query": {"text": "green bag"}, "products": [*whole, "p04", "p13", "p22"]}
    plain = {hit["product_id"]: hit["score"] for hit in post(client, "rank", body)["hits"]}
    taste = {hit["product_id"]: hit["score"] for hit in post(client, "rank", body | {"user_id": "taste"})["hits"]}
    for number in (4, 13, 22):
        assert taste[f"new{number}"] == pytest.approx(taste[f"p{number:02d}"], abs=5e-3)
        assert abs(taste[f"new{number}"] - plain[f"new{number}"]) > 0.02


def test_unknown_repeated_and_refused_products(client: TestClient):
    body = {"query": {"text": "hat"}, "products": ["p01", "nobody", "p02", "p01", ""]}
    answer = post(client, "rank", body)
    assert sorted(hit["index"] for hit in answer["hits"]) == [0, 2]
    assert answer["unknown"] == [1, 4]
    assert post(client, "rank", body | {"products": ["nobody"]})["hits"] == []

    def refused(**changes: Any) -> tuple[int, str]:
        response = client.post("/v1/rank", json=body | changes)
        return response.status_code, response.json()["error"]["message"]

    assert refused(products=["p01", {"product_id": "x", "colour": "red"}])[0] == 422
    assert "products.1" in refused(products=["p01", {"product_id": "x", "colour": "red"}])[1]
    assert "products.0" in refused(products=[{"product_id": "x", "images": ["aGVsbG8="]}])[1]
    assert refused(products=[7])[0] == refused(products=[None])[0] == 422
    assert refused(products=[])[0] == refused(query={})[0] == refused(products=["p01"] * 201)[0] == 422
    assert refused(query={"text": "x", "weights": {"text": 0}})[0] == 422


def test_vectors_give_the_searchs_scores(client: TestClient, shop: ModuleType, served: Run, tmp_path: Path):  # noqa: F811
    _, _, folder = served
    query = {"text": "red shoe", "image": picture(shop)}
    found = post(client, "search", {**query, "limit": 20, "explain": True})
    (asked,) = post(client, "embed", {"kind": "query", "inputs": [query]})["vectors"]
    catalogue = open_generation(folder).catalogue
    for hit in found["hits"]:
        stored = catalogue.vectors[catalogue.rows[hit["product_id"]]]
        assert float(np.dot(asked, stored)) == pytest.approx(hit["explanation"]["fused_score"], abs=1e-5)
    numbers = (0, 4, 9, 13)
    whole = [{"product": sent(shop, tmp_path, number, "any")} for number in numbers]
    answer = post(client, "embed", {"kind": "product", "inputs": whole})
    rows = [catalogue.rows[f"p{number:02d}"] for number in numbers]
    assert np.array(answer["vectors"]) == pytest.approx(catalogue.vectors[rows], abs=2e-3)
    assert answer["width"] == catalogue.vectors.shape[1]
    assert answer["generation"] == found["generation"]
    assert answer["model_version"] == found["model_version"]


def test_many_inputs_are_vectors_in_order_and_parts_are_products(client: TestClient, shop: ModuleType):
    words = ["red shoe", "blue hat", "green bag", "black watch"] * 10
    inputs = [{"text": word} for word in words]
    many = np.array(post(client, "embed", {"kind": "query", "inputs": inputs})["vectors"])
    for place, word in enumerate(words[:4]):
        (alone,) = post(client, "embed", {"kind": "query", "inputs": [{"text": word}]})["vectors"]
        assert many[place::4] == pytest.approx(np.tile(alone, (10, 1)), abs=1e-5)
    parts = [{"text": "red shoe"}, {"image": picture(shop)}, {"text": "red shoe", "image": picture(shop)}]
    made = np.array(post(client, "embed", {"kind": "product", "inputs": parts})["vectors"])
    assert len(np.unique(made.round(4), axis=0)) == 3
    for bad in (
        {"kind": "query", "inputs": []},
        {"kind": "query", "inputs": [{}]},
        {"kind": "query", "inputs": [{"product": {"product_id": "x"}}]},
        {"kind": "product", "inputs": [{"product": {"product_id": "x"}, "text": "x"}]},
        {"kind": "product", "inputs": [{"product": 7}]},
        {"kind": "product", "inputs": [{"image": "aGVsbG8="}]},
        {"kind": "other", "inputs": [{"text": "x"}]},
        {"kind": "query", "inputs": [{"text": "x"}] * 201},
    ):
        response = client.post("/v1/embed", json=bad)
        assert response.status_code == 422, (bad, response.text)


def test_the_contract_tells_of_both(client: TestClient):
    document = client.get("/openapi.json").json()
    for path in ("/v1/rank", "/v1/embed"):
        operation = document["paths"][path]["post"]
        assert "Scope: `search`" in operation["description"]
        assert {"200", "401", "403", "413", "422", "429", "503", "504"} <= set(operation["responses"])
    products = json.dumps(document["components"]["schemas"]["RankRequest"]["properties"]["products"])
    assert "ProductChange" in products


def test_the_catalogue_is_as_it_was(client: TestClient, served: Run, shop: ModuleType, tmp_path: Path):  # noqa: F811
    experiment, deployments, _ = served
    catalogue = deployments["retriever"].held.current().live.catalogue
    before = (catalogue.size, catalogue.version, catalogue.seq)
    post(client, "rank", {"query": {"text": "x"}, "products": [sent(shop, tmp_path, 3, "guest")]})
    assert (catalogue.size, catalogue.version, catalogue.seq) == before
    assert len(catalogue.traits._tier) == pq.read_table(generation_folder(experiment) / "products.parquet").num_rows
