"""Live changes through every deployment, in this process: what is sent is found, shown, filtered on, and survives."""

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from serve.app import generation_folder, store_url
from serve.embedder import Embedder
from serve.gateway import Gateway
from serve.retriever import RetrieverDeployment
from serve.routes import create_app
from tests.serve import shop
from tests.serve.conftest import deploy, front

TOLERANCE = 1e-3  # float16, of numbers up to 1; batches of other sizes round otherwise
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
    gateway.held.stop()


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
    while parts["retriever"].held.current().live.catalogue.seq < last:
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
    assert set(found[0]["explanation"]["modality_scores"]) == {"text", "price", "attributes"}


def test_a_patch_is_filtered_on_and_encodes_nothing_that_did_not_change(store: TestClient, parts: dict[str, Any]):
    encoded = parts["products"].embedder.encoded
    before = encoded.copy()
    vector = parts["retriever"].held.current().live.catalogue.vectors[np.array([4])]
    cheap = {"price": {"lte": 1}}
    assert shown(store, text="shoe", filter=cheap) == []
    seen(parts, send(store, "PATCH", [{"product_id": "p04", "in_stock": False, "rating": 4.5, "review_count": 900,
                                       "attributes": {"mood": "calm"}}]))  # fmt: skip
    assert encoded == before
    assert shown(store, text="shoe", filter={"attributes.mood": "calm", "in_stock": False}) == ["p04"]
    np.testing.assert_array_equal(parts["retriever"].held.current().live.catalogue.vectors[np.array([4])], vector)
    seen(parts, send(store, "PATCH", [{"product_id": "p04", "price": 0.5}]))
    assert shown(store, text="shoe", filter=cheap) == ["p04"]
    assert encoded - before == {"price": 1}
    assert (parts["retriever"].held.current().live.catalogue.vectors[np.array([4])] != vector).any()
    seen(parts, send(store, "PATCH", [{"product_id": "p04", "title": "Sandal"}]))
    assert encoded - before == {"price": 1, "text": 1}
    product = store.get("/v1/products/p04").json()
    assert (product["title"], product["rating"], product["attributes"]["colour"]) == ("Sandal", 4.5, "red")


def test_strangers_are_recommended_what_has_become_popular(store: TestClient, parts: dict[str, Any]):
    seen(parts, send(store, "PATCH", [{"product_id": "p07", "rating": 5, "review_count": 1_000_000}]))
    answer = store.post("/v1/recommend", json={"user_id": "stranger", "limit": 1}).json()
    assert (answer["source"], answer["hits"][0]["product_id"]) == ("popularity", "p07")


def test_a_deleted_product_is_gone_everywhere_and_can_return(store: TestClient, parts: dict[str, Any]):
    gone = send(store, "POST", {"ids": ["p08"]}, "/v1/products/delete")
    assert store.get("/v1/products/p08").status_code == 404
    assert store.get("/v1/products/p08/similar").status_code == 404
    assert "p08" not in shown(store, text="red watch")  # at once: the gateway knows
    seen(parts, gone)
    assert "p08" not in shown(store, text="red watch")
    assert "p08" not in [h["product_id"] for h in store.get("/v1/products/p04/similar?limit=50").json()["hits"]]
    again = {"product_id": "p08", "title": "red watch", "price": 3}
    seen(parts, send(store, "POST", [again]))
    assert shown(store, text="red watch", filter={"price": 3}) == ["p08"]


def test_media_are_kept_shown_and_encoded(store: TestClient, parts: dict[str, Any], live: Experiment):
    picture = base64.b64encode(shop.picture("green")).decode()
    product = {"product_id": "seen", "title": "mask", "images": [f"data:image/png;base64,{picture}"]}
    seen(parts, send(store, "POST", [product]))
    assert store.get("/v1/products/seen/image").content == shop.picture("green")
    assert len(list((live.run / "store" / "media").glob("*/*.png"))) == 1
    (hit,) = hits(store, image=picture, filter={"product_id": "seen"}, explain=True)
    assert set(hit["explanation"]["modality_scores"]) == {"text", "image"}
    seen(parts, send(store, "PATCH", [{"product_id": "seen", "images": []}]))
    assert store.get("/v1/products/seen/image").status_code == 404
    (hit,) = hits(store, text="mask", filter={"product_id": "seen"}, explain=True)
    assert set(hit["explanation"]["modality_scores"]) == {"text"}


@pytest.mark.parametrize(
    ("product", "reason"),
    [
        ({"product_id": ""}, "product_id must be text"),
        ({"title": "no id"}, "product_id must be text"),
        ("p1", "must be an object"),
        ({"product_id": "x" * 257}, "at most 256"),
        ({"product_id": "x", "colour": "red"}, "unknown field 'colour'"),
        ({"product_id": "x", "price": -1}, "price: must be an amount"),
        ({"product_id": "x", "price": "cheap"}, "price: must be an amount"),
        ({"product_id": "x", "price": 1e300}, "price: must be an amount"),
        ({"product_id": "x", "price": 9, "price_max": 8}, "price_max: lies below"),
        ({"product_id": "x", "in_stock": "perhaps"}, "in_stock: must be true or false"),
        ({"product_id": "x", "review_count": -3}, "review_count: must be a whole number"),
        ({"product_id": "x", "updated_at": "soon"}, "updated_at: must be ISO 8601"),
        ({"product_id": "x", "title": ["a"]}, "title: must be text"),
        ({"product_id": "x", "title": "a" * 2001}, "title: must have at most 2000"),
        ({"product_id": "x", "category": {"a": 1}}, "category: must be a list"),
        ({"product_id": "x", "attributes": [1]}, "attributes: must be an object"),
        ({"product_id": "x", "images": ["https://shop.example/a.png"]}, "URLs are never fetched"),
        ({"product_id": "x", "images": ["%%%"]}, "images: is not valid base64"),
        ({"product_id": "x", "images": [base64.b64encode(b"no picture").decode()]}, "images: unreadable"),
        ({"product_id": "x", "audio": base64.b64encode(b"no sound").decode()}, "audio: unreadable"),
    ],
)
def test_a_bad_product_is_refused_with_its_reason_and_holds_up_no_other(store: TestClient, product: Any, reason: str):
    good = {"product_id": "good", "title": "good one"}
    first, bad, last = send(store, "POST", [good, product, good])
    assert (first["status"], bad["status"], last["status"]) == ("accepted", "rejected", "accepted")
    assert reason in bad["reason"]
    assert store.get("/v1/products/x").status_code == 404


def test_patches_and_deletes_of_unknown_products_and_empty_patches_are_refused(store: TestClient):
    unknown, empty = send(store, "PATCH", [{"product_id": "nobody", "price": 1}, {"product_id": "p01"}])
    assert "no product of this id" in unknown["reason"]
    assert empty["reason"] == "nothing to change."
    (gone,) = send(store, "POST", {"ids": ["nobody"]}, "/v1/products/delete")
    assert gone["status"] == "rejected"
    assert store.post("/v1/products", json=[{}] * 1001).status_code == 422
    assert store.post("/v1/products", json={"product_id": "p"}).status_code == 422


def test_a_live_product_has_the_vectors_of_one_that_was_imported(store: TestClient, parts: dict[str, Any]):
    """Every imported product is sent again under another id; what the encoders made of both must be the same."""
    catalogue, documents = parts["retriever"].held.current().live.catalogue, parts["products"].embedder.base
    originals = [f"p{number}" for number in range(10, 30)]
    copies = []
    for product_id in originals:
        record = documents.record(product_id)
        number = int(product_id[1:])
        images = (
            []
            if number % 10 == 9
            else [base64.b64encode(shop.picture(list(shop.COLOURS)[number % 4], 32 + number)).decode()]
        )
        copies.append({**record, "product_id": f"copy-{product_id}", "images": images})
    items = [item for part in (copies[:10], copies[10:]) for item in send(store, "POST", part)]
    assert {item["status"] for item in items} == {"accepted"}
    seen(parts, items)
    rows, again = (
        np.array([catalogue.rows[name] for name in names]) for names in (originals, [c["product_id"] for c in copies])
    )
    np.testing.assert_array_equal(catalogue.mask[again], catalogue.mask[rows])
    there = catalogue.mask[rows]
    np.testing.assert_allclose(
        catalogue.modality_vectors[again][there].astype(np.float32),
        catalogue.modality_vectors[rows][there].astype(np.float32),
        atol=TOLERANCE,
    )
    np.testing.assert_allclose(catalogue.vectors[again], catalogue.vectors[rows], atol=TOLERANCE)


def test_a_replica_that_starts_again_catches_up_without_encoding(parts: dict[str, Any], live: Experiment):
    encoded = parts["products"].embedder.encoded.copy()
    old = parts["retriever"].held.current().live.catalogue
    folder = generation_folder(live)
    fresh = RetrieverDeployment(folder, live.index.candidates, store_url(live))
    new = fresh.held.current().live.catalogue
    assert new.seq == old.seq
    assert new.ids == old.ids
    rows = np.flatnonzero(old.present)
    np.testing.assert_array_equal(np.flatnonzero(new.present), rows)
    for mine, theirs in (
        (new.vectors, old.vectors),
        (new.modality_vectors, old.modality_vectors),
        (new.mask, old.mask),
    ):
        np.testing.assert_array_equal(mine[rows], theirs[rows])
    np.testing.assert_array_equal(
        fresh.held.current().live.popularity, parts["retriever"].held.current().live.popularity
    )
    assert parts["products"].embedder.encoded == encoded
    fresh.held.stop()


def test_compaction_in_the_background_changes_no_answer(store: TestClient, parts: dict[str, Any], live: Experiment):
    fresh = RetrieverDeployment(generation_folder(live), live.index.candidates, store_url(live), compact_after=1)
    try:
        deadline = time.monotonic() + 30
        while fresh.held.current().live.compactions == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert fresh.held.current().live.catalogue.delta == 0
        query = SearchRequest(
            query_vector=np.ones(parts["retriever"].held.current().live.catalogue.vectors.shape[1], np.float32)
        )
        mine, theirs = (
            Retriever(one.held.current().live.catalogue).search([query])[0] for one in (fresh, parts["retriever"])
        )
        np.testing.assert_array_equal(mine.rows, theirs.rows)
        np.testing.assert_allclose(mine.fused, theirs.fused, rtol=1e-6)
    finally:
        fresh.held.stop()


def test_an_encoder_that_fails_is_asked_again_and_nothing_is_lost(
    store: TestClient, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    encoders, failures = parts["products"]._encoders, []

    class Restarting:
        async def remote(self, envelopes: list[Any]) -> list[Any]:
            failures.append(len(envelopes))
            await asyncio.sleep(0)
            raise ConnectionError("the replica died")

    working = encoders["text"].products
    monkeypatch.setattr(encoders["text"], "products", Restarting())
    items = send(store, "POST", [{"product_id": "late", "title": "lantern"}])
    assert items[0]["status"] == "accepted"
    deadline = time.monotonic() + 20
    while not failures:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert store.get("/v1/products/late").json()["title"] == "lantern"
    monkeypatch.setattr(encoders["text"], "products", working)
    seen(parts, items)
    assert shown(store, text="lantern", filter={"product_id": "late"}) == ["late"]


@pytest.mark.parametrize("turns", range(6))
def test_the_embedder_ends_when_told_though_a_change_comes_with_it(live: Experiment, parts: dict[str, Any], turns: int):
    """Cancelled just after a wake: `turns` turns of the loop between the two."""
    held = parts["products"].embedder
    embedder = Embedder(generation_folder(live), 0, [], held._database, held._encode)
    embedder._seq = held._database.last_change()  # nothing is to be done

    async def end() -> None:
        running = asyncio.create_task(embedder.run())
        await asyncio.sleep(0.05)
        embedder.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        _, pending = await asyncio.wait([running], timeout=5)
        running.cancel()
        assert not pending

    asyncio.run(end())
