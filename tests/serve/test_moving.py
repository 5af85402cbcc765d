"""Recommendations move with the user and with the catalogue, through HTTP on the generated shop: who clicks three red
products sees more red within a second, and a product upserted now is recommended within 1,000 slates."""

import base64
import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from fuserank import config
from fuserank.evaluation.intervals import interval
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.neighbours import Neighbours
from fuserank.feedback.sequences import pad_history, sequence
from fuserank.models.checkpoint import load_model
from fuserank.records.synthetic.behaviour import make_events, make_users
from fuserank.records.synthetic.catalogue import Product
from fuserank.records.synthetic.pictures import encode, render
from fuserank.records.synthetic.taxonomy import CATEGORIES
from fuserank.retrieval.generation import open_generation
from serve.app import generation_folder
from serve.routes import create_app
from tests.serve import conftest, generated

PRODUCTS, USERS, SLATES = 240, 300, 1000
Shop = tuple[config.Experiment, list[Product]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    experiment, items, figures = generated.build_run(tmp_path_factory.mktemp("moving"), PRODUCTS, USERS)
    assert figures["blend_ndcg@10"] > 1.5 * figures["recommender_ndcg@10"]
    assert len(figures["weights"]) > 1
    return experiment, items


@contextmanager
def served(experiment: config.Experiment, folder: Path) -> Iterator[TestClient]:
    experiment = config.update(experiment, {"store.url": f"sqlite:///{folder}/moving.db"})
    deployments = conftest.deploy(experiment)
    gateway = conftest.front(experiment, deployments)
    with TestClient(create_app(gateway, 8_000_000, "test")) as client:
        yield client
    for part in (gateway.held, deployments["retriever"].held):
        part.stop()
    deployments["products"].__del__()
    deployments["feedback"].__del__()


def recommend(client: TestClient, user: str, limit: int = 10) -> list[str]:
    answer = client.post("/v1/recommend", json={"user_id": user, "limit": limit})
    assert answer.status_code == 200, answer.text
    return [hit["product_id"] for hit in answer.json()["hits"]]


def click(client: TestClient, user: str, items: list[Product]) -> None:
    now = int(1000 * time.time())
    events = [
        {"type": "click", "product_id": item.product_id, "user_id": user, "timestamp": now - 3000 + 900 * n}
        for n, item in enumerate(items)
    ]
    assert client.post("/v1/events", json=events).json()["accepted"] == len(items)


def test_three_red_clicks_bring_more_red_within_a_second(shop: Shop, tmp_path: Path):
    experiment, items = shop
    colour = {item.product_id: item.colour for item in items}
    draw, more = random.Random(3), {name: [] for name in ("red", "blue", "green")}
    with served(experiment, tmp_path) as client:
        for number, name in itertools.product(range(15), more):
            user = f"{name}{number}"
            click(client, user, draw.sample([item for item in items if item.colour != name], 3))
            before = recommend(client, user)
            click(client, user, draw.sample([item for item in items if item.colour == name], 3))
            accepted = time.monotonic()
            after = recommend(client, user)
            assert time.monotonic() - accepted < 1
            more[name].append(
                np.mean([colour[p] == name for p in after]) - np.mean([colour[p] == name for p in before])
            )
    gains = {name: interval(np.array(found)) for name, found in more.items()}
    print({name: (round(gain.mean, 3), round(gain.low, 3)) for name, gain in gains.items()})
    assert all(gain.low > 0 for gain in gains.values()), gains


def upsert(client: TestClient, name: str, kind: str, colour: str) -> str:
    """Put a new product into the shop, as the shop itself would describe it."""
    picture = encode(render(kind, colour, "plain", "round", random.Random(name)))
    product = {
        "product_id": name, "title": f"Juno {colour} {kind}", "price": 20, "currency": "EUR", "brand": "Juno",
        "category": list(CATEGORIES[kind]), "images": [base64.b64encode(picture).decode()],
        "attributes": {"color": colour},
    }  # fmt: skip
    assert client.post("/v1/products", json=[product]).json()["accepted"] == 1
    return name


NEW = (("new0", "bag", "red"), ("new1", "lamp", "green"), ("new2", "plate", "black"))


def test_a_product_upserted_now_is_recommended_within_a_thousand_slates(shop: Shop, tmp_path: Path):
    """To users of the shop with their own pasts, in turn, by a policy that learns; nobody has turned to it yet."""
    experiment, items = shop
    experiment = config.update(experiment, {"policy.online": {"candidates": 40}})
    pasts: dict[str, list[dict[str, Any]]] = {}
    for event in make_events(items, make_users(USERS, generated.SEED)[:60], generated.SEED):
        if event["type"] in ("click", "purchase"):
            pasts.setdefault(event["user_id"], []).append(event)
    firsts = []
    with served(experiment, tmp_path) as client:
        for past in pasts.values():
            client.post("/v1/events", json=past[-20:])
        for name, kind, colour in NEW:
            upsert(client, name, kind, colour)
            users = itertools.cycle(pasts)
            shown = (n for n in range(1, SLATES + 1) if name in recommend(client, next(users)))
            firsts.append(next(shown, None))
    print(firsts)
    assert None not in firsts


def test_a_new_product_is_recommended_for_what_it_is(shop: Shop, tmp_path: Path):
    """Without a policy, to who has just clicked three of its kind: by content alone."""
    experiment, items = shop
    draw = random.Random(1)
    with served(experiment, tmp_path) as client:
        for name, kind, colour in NEW:
            upsert(client, name, kind, colour)
            alike = sorted((item for item in items if item.type == kind), key=lambda item: item.colour != colour)[:6]
            click(client, f"fan of {kind}", draw.sample(alike, 3))
            deadline = time.monotonic() + 5
            while name not in recommend(client, f"fan of {kind}", 20):
                assert time.monotonic() < deadline, kind


def test_the_served_order_is_the_formula(shop: Shop, tmp_path: Path):
    """Every product scored here, from the generation's files; the shop is small enough for all to be candidates."""
    experiment, items = shop
    folder = generation_folder(experiment)
    opened = open_generation(folder)
    catalogue, weights = opened.catalogue, opened.manifest["blend"]
    counted = Behaviour.load(folder / "model")
    clicked = random.Random(8).sample(items, 7)
    with served(experiment, tmp_path) as client:
        click(client, "eve", clicked)
        answer = client.post("/v1/recommend", json={"user_id": "eve", "limit": 20}).json()
    past = [catalogue.rows[item.product_id] for item in clicked]
    latest, vectors = past[-5:], np.array(catalogue.vectors, np.float64)
    content = sum(0.8**age * vectors[row] for age, row in enumerate(reversed(latest)))
    together, popular = np.zeros(catalogue.size), counted.popularity.astype(np.float64)
    for left, right, weight in zip(counted.left, counted.right, counted.weight, strict=True):
        together[right] += weight * (left in latest)
    seen = popular > 0
    for row in np.flatnonzero(~seen):
        near = [other for other in np.argsort(-(vectors @ vectors[row]), kind="stable")[:50] if seen[other]][:5]
        together[row], popular[row] = np.mean(together[near]), np.mean(popular[near])
    affinity = catalogue.traits.affinity(np.arange(catalogue.size), latest)
    share = Neighbours.load(folder / "model", catalogue.size).scores(np.array(past), catalogue.size)
    share = share / share.sum()
    near = share.copy()
    for row in np.flatnonzero(~seen):
        alike = [other for other in np.argsort(-(vectors @ vectors[row]), kind="stable")[:50] if seen[other]][:5]
        near[row] = np.mean(share[alike])
    recommender = load_model(folder / "model").recommender
    assert recommender is not None
    turned = pad_history([sequence([(row, "click", 0.9 * n) for n, row in enumerate(past)])], recommender.events)
    told = (torch.from_numpy(turned[name]) for name in ("types", "gaps", "mask"))
    with torch.inference_mode():
        table = recommender.table(torch.from_numpy(np.array(catalogue.vectors, np.float32)))
        user = recommender.user_vectors(table[turned["rows"]], *told)[0]
    parts = {
        "recommender": (table @ user).numpy(),
        "content": vectors @ content / np.linalg.norm(content),
        "together": together, "near": np.log(near + 1e-4), "popularity": popular,
        "values": affinity[:, 0], "price": affinity[:, 1],
    }  # fmt: skip
    score = sum(weight * parts[name] for name, weight in weights.items())
    score[past] = -np.inf
    expected = [catalogue.ids[row] for row in np.argsort(-score, kind="stable")[:20]]
    assert [hit["product_id"] for hit in answer["hits"]] == expected
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(np.sort(score)[::-1][:20].tolist(), abs=2e-3)
