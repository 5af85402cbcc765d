"""What users were shown and passed over tells a policy what they like, through HTTP with every deployment in process.

The liking is computed anew here, by NumPy, from what the database holds.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fuserank.config import Experiment
from fuserank.retrieval.generation import open_generation
from fuserank.retrieval.liking import CHANCE, NOISE, Liking
from fuserank.retrieval.policy_inputs import BOUND, LIKING
from fuserank.store.database import Database
from serve.app import generation_folder, store_url
from tests.serve.test_policies import HISTORY, impressions, recommend, served, settings

LOOKED = [1.0, 0.5, 0.25]


def logged(experiment: Experiment, count: int, request: str) -> dict[str, dict[str, float]]:
    """Candidate → what the policy was told of it."""
    row = impressions(experiment, count)[request]
    told = json.loads(row["features"])
    return {
        product: dict(zip(told["names"], values, strict=True))
        for product, values in zip(row["candidate_ids"], told["values"], strict=True)
    }


def expected(experiment: Experiment, shown: list[tuple[list[str], set[str]]], asked: list[str]) -> np.ndarray:
    """The mean of a Gaussian process whose kernel is the dot product of what Liking sees."""
    catalogue = open_generation(generation_folder(experiment)).catalogue
    row = {product: place for place, product in enumerate(catalogue.ids)}
    vectors = np.asarray(catalogue.vectors[np.arange(catalogue.size)], np.float32)
    seen = Liking(vectors).seen(vectors).astype(np.float64)
    pairs = [(p, place, p in turned) for products, turned in shown for place, p in enumerate(products)]
    looked = np.array([LOOKED[min(place, len(LOOKED) - 1)] for _, place, _ in pairs])
    told = np.stack([seen[row[product]] for product, _, _ in pairs]) * looked[:, None]
    wanted = np.array([turned for _, _, turned in pairs], float) - CHANCE * looked
    dual = np.linalg.solve(told @ told.T + NOISE * np.eye(len(told)), wanted)
    return np.stack([seen[row[product]] for product in asked]) @ told.T @ dual


def click(client: TestClient, answer: dict[str, Any], place: int, user: str = "ann") -> str:
    product = answer["hits"][place]["product_id"]
    event = {"type": "click", "product_id": product, "user_id": user, "request_id": answer["request_id"]}
    assert client.post("/v1/events", json=[event]).json()["accepted"] == 1
    return product


def test_liking_follows_what_was_shown_and_turned_to(experiment: Experiment, tmp_path: Path):
    experiment = settings(experiment, tmp_path, looked_at=LOOKED, shown=3)
    with served(experiment, learning=False) as client:
        client.post("/v1/events", json=HISTORY)
        first = recommend(client)
        assert {told["liking"] for told in logged(experiment, 1, first["request_id"]).values()} == {0.0}
        clicked = [(first, click(client, first, 1))]
        for count in (2, 3, 4):
            answer = recommend(client)
            impressions(experiment, count)
            clicked.append((answer, click(client, answer, 0) if count == 3 else ""))
        last = recommend(client)
        found = logged(experiment, 5, last["request_id"])
    shown = [([hit["product_id"] for hit in answer["hits"]], {product}) for answer, product in clicked[1:]]  # three
    wanted = LIKING * expected(experiment, shown, list(found))
    told = np.array([[found[p][name] for name in ("liking", "liking_near", "near_last")] for p in found])
    assert np.ptp(told[:, 0]) > 0.05
    np.testing.assert_allclose(told[:, 0], BOUND * np.tanh(wanted / BOUND), atol=2e-3)
    near = BOUND * np.arctanh(told[:, 2] / BOUND)
    np.testing.assert_allclose(told[:, 1], BOUND * np.tanh(wanted * near / BOUND), atol=2e-3)


@pytest.mark.parametrize("shown", [0, 50])
def test_nothing_is_read_where_nothing_is_wanted_and_nothing_of_the_erased(
    experiment: Experiment, tmp_path: Path, shown: int
):
    experiment = settings(experiment, tmp_path, shown=shown)
    with served(experiment, learning=False) as client:
        client.post("/v1/events", json=HISTORY)
        click(client, recommend(client), 0)
        impressions(experiment, 1)
        second = logged(experiment, 2, recommend(client)["request_id"])
        assert any(told["liking"] for told in second.values()) == (shown > 0)
        with Database(store_url(experiment)) as database:
            database.erase_user("ann")
            assert database.shown("ann", 9, ("click",)) == []
        client.post("/v1/events", json=HISTORY)
        again = recommend(client)
        assert not any(told["liking"] for told in logged(experiment, 1, again["request_id"]).values())
