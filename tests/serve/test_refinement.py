"""What a search may ask beyond its hits, over HTTP: counts, order, pages, groups, marks, mended words."""

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, shop: ModuleType) -> dict[str, dict[str, Any]]:
    """The shop's products as it made them."""
    media: Path = tmp_path_factory.mktemp("media")
    return {row["product_id"]: row for row in shop.products(media).to_pylist()}


def ask(client: TestClient, **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/search", json={"text": "red shoe", "limit": 40, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["product_id"] for hit in answer["hits"]]


def test_nothing_of_it_comes_unasked(client: TestClient):
    assert not {"facets", "total", "corrected", "total_groups"} & {k for k, v in ask(client).items() if v is not None}


def test_counts_are_those_of_the_products_under_the_filter(client: TestClient, rows: dict[str, dict[str, Any]]):
    condition = {"and": [{"brand": "Acme"}, {"in_stock": True}]}
    answer = ask(client, filter=condition, facets=["brand", "in_stock", "attributes.colour", "price"])
    inside = [row for row in rows.values() if row["brand"] == "Acme" and row["in_stock"]]
    assert (answer["total"], answer["total_relation"]) == (len(inside), "eq")
    facets = answer["facets"]
    brands = Counter(row["brand"] for row in rows.values() if row["in_stock"])  # its own condition does not count
    assert {v["value"]: v["count"] for v in facets["brand"]["values"]} == brands
    stock = Counter(row["in_stock"] for row in rows.values() if row["brand"] == "Acme")
    assert {v["value"]: v["count"] for v in facets["in_stock"]["values"]} == stock
    colours = Counter(dict(row["attributes"])["colour"] for row in inside)
    assert {v["value"]: v["count"] for v in facets["attributes.colour"]["values"]} == colours
    prices = [float(row["price"]) for row in inside if row["price"] is not None]
    assert (facets["price"]["min"], facets["price"]["max"]) == (min(prices), max(prices))
    assert sum(r["count"] for r in facets["price"]["ranges"]) == len(prices)


def test_pages_of_an_order_are_cut_from_one(client: TestClient, rows: dict[str, dict[str, Any]]):
    whole = ids(ask(client, sort=[{"price": "asc"}]))
    prices = [rows[name]["price"] for name in whole]
    known = [price for price in prices if price is not None]
    assert len(whole) == 40
    assert known == sorted(known)
    assert prices[len(known) :] == [None] * (40 - len(known))
    pages = [ids(ask(client, sort=[{"price": "asc"}], limit=7, offset=offset)) for offset in range(0, 42, 7)]
    assert [name for page in pages for name in page] == whole
    both = ids(ask(client, sort=[{"rating": "desc"}, {"review_count": "asc"}]))
    assert both == sorted(both, key=lambda name: (-rows[name]["rating"], rows[name]["review_count"]))


def test_products_without_a_parent_stand_for_themselves(client: TestClient):
    flat, grouped = ids(ask(client)), ask(client, group_by="parent_id")  # with parents: test_live_refinement.py
    assert [(hit["product_id"], hit["group"]) for hit in grouped["hits"]] == [
        (name, {"size": 1, "product_ids": [name]}) for name in flat
    ]
    assert (grouped["total_groups"], grouped["total"]) == (40, 40)


def test_found_words_are_marked_and_typos_mended(client: TestClient):
    answer = ask(client, text="wach green", highlight=True)
    assert answer["corrected"] == "watch green"
    titles = {hit["title"]: hit["highlights"].get("title") for hit in answer["hits"]}
    assert titles["green watch"] == "<mark>green</mark> <mark>watch</mark>"
    assert titles["red watch"] == "red <mark>watch</mark>"
    assert titles["red hat"] is None
    assert ask(client, text="watch green").get("corrected") is None


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"facets": ["colour"]}, 422, "colour"),
        ({"facets": ["attributes.nothing"]}, 422, "nothing"),
        ({"sort": [{"brand": "asc"}]}, 422, "sort"),
        ({"sort": [{"price": "asc"}, {"price": "desc"}]}, 422, "each field once"),
        ({"group_by": "brand"}, 422, "group_by"),
        ({"facets": ["brand"] * 21}, 422, "facets"),
    ],
)
def test_what_cannot_be_is_refused(client: TestClient, query: dict[str, Any], status: int, words: str):
    answer = client.post("/v1/search", json={"text": "red shoe", **query})
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
