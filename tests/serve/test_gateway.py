"""The HTTP contract over a tiny real generation, every deployment in this process: answers, errors, what is stored."""

import base64
import math
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from fuserank.models.checkpoint import load_model
from fuserank.records.schema import EVENT_TYPES
from fuserank.retrieval.generation import open_generation
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.store.database import Database
from serve.app import generation_folder, store_url
from serve.envelope import Result
from serve.gateway import Gateway
from serve.routes import create_app


def picture(shop: ModuleType, colour: str = "red") -> str:
    return base64.b64encode(shop.picture(colour)).decode()


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["product_id"] for hit in answer["hits"]]


def test_a_text_answer_holds_all_that_is_promised(client: TestClient, experiment: Experiment):
    answer = client.post("/v1/search", json={"text": "red shoe", "limit": 5}).json()
    assert sorted(answer) == [
        "degraded",
        "generation",
        "hits",
        "logged",
        "model_version",
        "request_id",
        "stages",
        "took_ms",
    ]
    assert list(answer["stages"]) == ["queue", "encode", "retrieve", "rerank", "render", "log"]
    assert answer["generation"] == generation_folder(experiment).name
    assert len(answer["hits"]) == 5
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert {"product_id", "score", "title", "price", "brand", "image", "in_stock"} == set(answer["hits"][0])
    priced = next(hit for hit in answer["hits"] if hit["price"])
    assert priced["price"]["currency"] == "EUR"


def test_the_order_equals_the_offline_pipeline(client: TestClient, experiment: Experiment):
    import torch

    from fuserank.features.batch import collate
    from fuserank.features.featurizer import Featurizer

    generation = open_generation(generation_folder(experiment))
    model, featurizer = load_model(generation.model_folder), Featurizer.load(generation.featurizer_folder)
    vectors, mask = torch.zeros(1, 4, 32), torch.tensor([[True, False, False, False]])
    with torch.inference_mode():
        vectors[0, 0] = model.encode("text", collate("text", featurizer.text(["blue bag"])))[0]
        fused, heads = model.search_vectors(vectors, mask)
    request = SearchRequest("blue bag", fused[0].numpy(), heads[0].numpy(), candidates=20)
    found = Retriever(generation.catalogue).search([request])[0]
    expected = [generation.catalogue.ids[row] for row in found.rows]  # the untrained reranker keeps the fused order
    assert ids(client.post("/v1/search", json={"text": "blue bag", "limit": 20}).json()) == expected[:20]


def test_picture_mixed_and_weighted_queries_differ_as_they_should(client: TestClient, shop: ModuleType):
    def search(**body: Any) -> list[tuple[str, float]]:
        response = client.post("/v1/search", json={"limit": 8, **body})
        assert response.status_code == 200, response.text
        return [(hit["product_id"], round(hit["score"], 5)) for hit in response.json()["hits"]]

    image = picture(shop)
    words, seen, both = search(text="watch"), search(image=image), search(text="watch", image=image)
    assert words != seen != both != words
    assert search(text="watch", image=image, weights={"image": 0}) == words
    assert search(text="watch", image=image, weights={"text": 0}) == seen
    assert search(image="data:image/png;base64," + image) == seen


def test_filters_paging_and_exclusion(client: TestClient, experiment: Experiment):
    table = pq.read_table(generation_folder(experiment) / "products.parquet").to_pylist()
    wanted = {p["product_id"] for p in table if p["brand"] == "Nord" and p["price"] and p["price"] <= 40}
    condition = {"and": [{"brand": "Nord"}, {"price": {"lte": 40}}]}
    body = {"text": "red shirt", "filter": condition, "limit": 50}
    everything = ids(client.post("/v1/search", json=body).json())
    assert set(everything) == wanted
    pages = [ids(client.post("/v1/search", json=body | {"limit": 3, "offset": o}).json()) for o in range(0, 30, 3)]
    assert [hit for page in pages for hit in page] == everything
    left = ids(client.post("/v1/search", json=body | {"exclude": everything[:2]}).json())
    assert left == everything[2:]


def test_explanations_sum_to_the_score(client: TestClient, shop: ModuleType):
    body = {"text": "red", "image": picture(shop), "limit": 30, "explain": True}
    for hit in client.post("/v1/search", json=body).json()["hits"]:
        explanation = hit["explanation"]
        assert math.isclose(sum(explanation["contributions"].values()), hit["score"], abs_tol=1e-5)
        modalities = [v for k, v in explanation["contributions"].items() if k != "reranking"]
        assert math.isclose(sum(modalities), explanation["fused_score"], abs_tol=5e-3)  # vectors are stored as float16
        assert ("image" in explanation["modality_scores"]) == (hit["image"] is not None)


def test_explanations_rank_before_and_after_reranking(client: TestClient, gateway: Gateway, monkeypatch: Any):
    body = {"text": "red", "limit": 6, "explain": True}
    before = client.post("/v1/search", json=body | {"limit": 20}).json()["hits"]
    assert [hit["explanation"]["rank_before"] for hit in before] == list(range(20)), "the untrained reranker moves none"

    class Backwards:
        async def remote(self, envelopes: list[Any]) -> list[Any]:
            return [Result(e.request_id, np.arange(len(e.payload), dtype=np.float32)) for e in envelopes]

    monkeypatch.setattr(gateway._chain, "_reranker", Backwards())
    pages = [client.post("/v1/search", json=body | {"offset": offset}).json()["hits"] for offset in (0, 6)]
    hits = [hit for page in pages for hit in page]
    assert [hit["explanation"]["rank_after"] for hit in hits] == list(range(12))
    found = [hit["explanation"]["rank_before"] for hit in hits]
    assert found == list(range(found[0], found[0] - 12, -1))


def test_products_pictures_and_likeness(client: TestClient, shop: ModuleType):
    product = client.get("/v1/products/p01").json()
    assert product["title"] == "green shoe"
    assert product["category"] == ["goods", "shoe"]
    assert "labels" not in product
    image = client.get("/v1/products/p01/image")
    assert image.headers["content-type"] == "image/png"
    assert image.content == shop.picture("green", 33)
    assert client.get("/v1/products/p%2F39").json()["product_id"] == "p/39"
    similar = client.get("/v1/products/p%2F39/similar?limit=4").json()
    assert len(similar["hits"]) == 4
    assert "p/39" not in ids(similar)
    for path in ("/v1/products/none", "/v1/products/none/similar", "/v1/products/p09/image", "/v1/nowhere"):
        response = client.get(path)
        assert response.status_code == 404
        assert sorted(response.json()["error"]) == ["code", "hint", "message", "request_id"]
        assert "Traceback" not in response.text
    for path in ("/v1/products/..%2f..%2f..%2fetc%2fpasswd/image", "/..%2fapp.py", "/app.py"):
        assert client.get(path).status_code == 404


def test_recommendations_follow_the_stored_events(client: TestClient):
    cold = client.post("/v1/recommend", json={"user_id": "nobody", "limit": 5}).json()
    assert cold["source"] == "popularity"
    events = [
        {"event_id": f"e{i}", "type": "click", "product_id": p, "user_id": "ann"} for i, p in enumerate(["p01", "p05"])
    ]
    assert client.post("/v1/events", json=events).json() == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert client.post("/v1/events", json=events).json() == {"accepted": 0, "duplicates": 2, "rejected": []}
    warm = client.post("/v1/recommend", json={"user_id": "ann", "limit": 40}).json()
    assert warm["source"] == "recommender"
    assert {"p01", "p05"} & set(ids(warm)) == set()
    assert len(ids(warm)) == 38
    assert {(hit["propensity"], hit["policy"]) for hit in warm["hits"]} == {(1.0, "greedy@0")}
    again = client.post("/v1/recommend", json={"user_id": "ann", "limit": 40, "exclude_seen": False}).json()
    assert {"p01", "p05"} <= set(ids(again))
    only = client.post("/v1/recommend", json={"product_ids": ["p02"], "limit": 3, "filter": {"brand": "Acme"}}).json()
    assert only["source"] == "recommender"
    assert all(hit["brand"] == "Acme" for hit in only["hits"])


def test_a_bad_event_holds_up_no_other(client: TestClient):
    answer = client.post("/v1/events", json=[{"type": "buy"}, {"type": "view", "product_id": "p01"}, 7]).json()
    assert (answer["accepted"], answer["duplicates"]) == (1, 0)
    assert [item["index"] for item in answer["rejected"]] == [0, 2]
    assert client.post("/v1/events", json={"type": "view"}).status_code == 422
    assert client.post("/v1/events", json=[{}] * 1001).status_code == 422


def test_impressions_are_stored_by_shutdown(gateway: Gateway, experiment: Experiment):
    with TestClient(create_app(gateway, 200_000, "test")) as client:
        search = client.post("/v1/search", json={"text": "hat", "limit": 3, "user_id": "bob", "session_id": "s"}).json()
        recommended = client.post("/v1/recommend", json={"user_id": "bob", "limit": 2}).json()
    with Database(store_url(experiment)) as database:
        rows = {row["request_id"]: row for row in database.read_impressions().to_pylist()}
    shown = rows[search["request_id"]]
    assert (shown["kind"], shown["query"], shown["user_id"], shown["session_id"]) == ("search", "hat", "bob", "s")
    assert shown["product_ids"] == ids(search)
    assert shown["propensities"] == [1.0] * 3
    assert (shown["policy"], shown["generation"]) == ("greedy@0", search["generation"])
    assert rows[recommended["request_id"]]["kind"] == "recommend"


def test_health_generations_and_documents(client: TestClient):
    assert client.get("/v1/health/live").json() == {"status": "live"}
    assert client.get("/v1/health/ready").json() == {"status": "ready"}
    (generation,) = client.get("/v1/generations").json()["generations"]
    assert (generation["state"], generation["reason"]) == ("ready", None)  # this gateway has no service around it
    assert generation["products"] == 40
    contract = client.get("/openapi.json").json()
    paths = {path for path in contract["paths"] if path.startswith("/v1/")}
    assert {"/v1/search", "/v1/recommend", "/v1/events", "/v1/generations"} <= paths
    event = contract["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert event["items"]["properties"]["type"]["enum"] == list(EVENT_TYPES)
    assert event["items"]["required"] == ["type", "product_id"]


def test_the_storefront_needs_nothing_from_elsewhere(client: TestClient):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("/", "/store.css", "/store.js"):
        text = client.get(name).text
        assert "http://" not in text
        assert "https://" not in text


def test_popularity_draws_few_reviews_to_the_average():
    import pyarrow as pa

    from serve.popularity import popularity, reviews

    table = pa.table({"rating": [5.0, 4.5, None, 1.0], "review_count": [1, 1000, None, 1000]})
    scores = popularity(*reviews(table))
    assert np.argsort(-scores).tolist() == [1, 3, 0, 2]
    mean = (5.0 + 4.5 + 1.0) / 3
    assert math.isclose(scores[0], (5 + 10 * mean) / 11 * math.log10(2), rel_tol=1e-5)
