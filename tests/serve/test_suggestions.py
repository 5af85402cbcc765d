"""Completions against a plain count over the same products, before and after changes; and over HTTP."""

import random
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve.suggestions import Suggestions

PRODUCTS = [
    {"title": "Red leather boot, brown laces", "brand": "Acme", "category": ["Shoes", "Boots"]},
    {"title": "Red leather shoe", "brand": "Acme", "category": ["Shoes"]},
    {"title": "red LEATHER bag", "brand": "Rain & Co", "category": ["Bags"]},
    {"title": "Réd wool hat", "brand": None, "category": None},
    {"title": "T-Shirt white", "brand": "Acmé", "category": ["T-Shirts"]},
    {"title": "红色 连衣裙", "brand": "红星", "category": []},
    {"title": None, "brand": None, "category": None},
]


THREE = [("red LEATHER bag", 1), ("Red leather boot", 1), ("Red leather shoe", 1)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("r", [("Red", 4), ("Red leather", 3), ("Rain & Co", 1), ("Réd wool", 1), *THREE]),
        ("RÉD le", [("Red leather", 3), *THREE]),
        ("red leather b", THREE[:2]),
        ("red ", [("Red leather", 3), ("Réd wool", 1), *THREE]),
        ("leather", []),
        ("acme", [("Acme", 3)]),
        ("rain co", [("Rain & Co", 1)]),
        ("t-sh", [("T-Shirt", 1), ("T-Shirts", 1)]),
        ("tshirt w", [("T-Shirt white", 1)]),
        ("红", [("红星", 1), ("红色", 1)]),
        ("  &  ", []),
        ("red leather boot brown laces", []),
    ],
)
def test_completions(typed: str, expected: list[tuple[str, int]]):
    assert Suggestions(PRODUCTS).complete(typed, 20) == expected


def test_the_most_frequent_come_first_and_no_more_than_asked_for():
    found = Suggestions(PRODUCTS).complete("r", 20)
    assert found[:2] == [("Red", 4), ("Red leather", 3)]
    assert Suggestions(PRODUCTS).complete("r", 2) == found[:2]
    assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)


def test_changes_leave_what_a_fresh_start_would_know():
    draw = random.Random(1)

    def product() -> dict[str, Any]:
        words = draw.choices(["red", "Red", "blue", "wool", "boot", "-", "Café", "cafe"], k=draw.randrange(7))
        return {
            "title": " ".join(words),
            "brand": draw.choice(["Acme", "Nord", None]),
            "category": ["Shop", "Red wool"],
        }

    products: dict[int, Any] = {number: product() for number in range(30)}
    live = Suggestions(products.values())
    for _ in range(200):
        number = draw.randrange(40)
        new = product() if draw.random() < 0.7 else None
        live.replace(products.get(number), new)
        products[number] = new
        if draw.random() < 0.2:
            fresh = Suggestions([found for found in products.values() if found])
            for typed in ("r", "red", "red w", "c", "cafe ", "a", "b", "s"):
                assert live.complete(typed, 20) == fresh.complete(typed, 20)
    assert live._keys == sorted(live._shown) == sorted(live._counts)


def test_over_http(client: TestClient):
    answer = client.get("/v1/suggest", params={"q": "RED S", "limit": 5})
    assert answer.status_code == 200, answer.text
    assert answer.json()["suggestions"] == [{"text": "red shoe", "count": 2}, {"text": "red shirt", "count": 2}]
    assert {"request_id", "took_ms"} <= answer.json().keys()
    assert client.get("/v1/suggest", params={"q": "ac"}).json()["suggestions"] == [{"text": "Acme", "count": 20}]
    for bad in ({}, {"q": ""}, {"q": "x" * 201}, {"q": "x", "limit": 21}, {"q": "x", "limit": 0}):
        refused = client.get("/v1/suggest", params=bad)  # type: ignore[arg-type]
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "bad_request"
