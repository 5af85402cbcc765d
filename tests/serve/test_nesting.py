"""Deep and bushy JSON is refused at the gateway, where it fails alone, not in a deployment, where its batch would."""

import pickle
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve.envelope import RequestError
from serve.nesting import CONDITIONS, LEVELS, refuse_deep, refuse_large_filter


def nested(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = {"not": inner}
    return inner


def test_levels_are_counted_exactly_and_without_recursion():
    refuse_deep(nested(LEVELS), "x")
    refuse_deep([[]] * 100_000, "x")
    for deep in (nested(LEVELS + 1), nested(100_000), [[1, nested(LEVELS - 1)]]):
        with pytest.raises(RequestError, match="x: more than 32 levels"):
            refuse_deep(deep, "x")
    pickle.dumps(nested(LEVELS))  # what is let through can be sent on; what Python can parse cannot always
    with pytest.raises(RecursionError):
        pickle.dumps(nested(900))


def test_conditions_are_counted():
    refuse_large_filter(None)
    refuse_large_filter({"or": [{"brand": "x"}] * (CONDITIONS - 1)})
    refuse_large_filter({"brand": [str(i) for i in range(100_000)]})
    with pytest.raises(RequestError, match="more than 1000 conditions"):
        refuse_large_filter({"or": [{"brand": "x"}] * CONDITIONS})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/search", {"text": "x", "filter": nested(400)}),
        ("POST", "/v1/recommend", {"filter": nested(400)}),
        ("POST", "/v1/products", [{"product_id": "d", "attributes": nested(400)}]),
        ("PATCH", "/v1/products", [{"product_id": "d", "attributes": nested(400)}]),
        ("POST", "/v1/products/delete", {"ids": [nested(400)]}),
        ("POST", "/v1/events", [{"type": "view", "product_id": nested(400)}]),
    ],
)
def test_every_endpoint_refuses_it(client: TestClient, method: str, path: str, body: Any):
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_deep")
