"""The generated shop's files against independent computation: bytes, counts, leaks, judgments, oracles, behaviour."""

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuserank.evaluation.metrics import ndcg_at_k
from fuserank.records.synthetic import speech, taxonomy
from fuserank.records.synthetic.shop import write_shop

PLATFORM = Path(__file__).parents[4] / "platform"
NUMBERS = {"products": 300, "users": 60, "queries": 120}
RUN = """
import sys
from pathlib import Path
from fuserank.records.synthetic.shop import write_shop
write_shop(Path(sys.argv[1]), 100, 10, 20, int(sys.argv[2]), True)
"""


def rows(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop")
    summary = write_shop(path, **NUMBERS, seed=3, with_speech=False)
    (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture(scope="module")
def truth(folder):
    return json.loads((folder / "truth.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def products(folder):
    return {row["product_id"]: row for row in rows(folder / "products.csv")}


def digests(folder: Path, seed: int) -> dict[str, str]:
    """The files of a shop made by a process of its own, as a command makes it."""
    environment = {**os.environ, "PYTHONPATH": str(PLATFORM)}
    subprocess.run([sys.executable, "-c", RUN, str(folder), str(seed)], env=environment, check=True, timeout=120)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, again, other = (digests(tmp_path / name, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_counts(folder, products):
    assert len(products) == NUMBERS["products"]
    queries, events = rows(folder / "queries.jsonl"), rows(folder / "events.jsonl")
    assert len({query["query_id"] for query in queries}) == NUMBERS["queries"]
    assert len({event["user_id"] for event in events}) == NUMBERS["users"]
    assert len({event["event_id"] for event in events}) == len(events)
    categories = {row["category"] for row in products.values() if row["category"]}
    assert len(categories) == 12
    assert all(len(category.split("|")) == 2 for category in categories)


def test_about_a_fifth_lacks_one_of_text_picture_and_price(products):
    lacking = [
        [not row["title"], not row["image"], not row["price"]]  # one at most
        for row in products.values()
    ]
    assert max(map(sum, lacking)) == 1
    assert 0.12 < np.mean([any(each) for each in lacking]) < 0.28
    assert all(any(each[axis] for each in lacking) for axis in range(3))


def test_a_product_without_text_has_none_in_any_column(products):
    without = [row for row in products.values() if not row["title"]]
    assert without
    assert not any(row[name] for row in without for name in ("description", "brand", "category"))


def test_no_text_names_a_pattern_shape_or_tier(products, truth):
    words = {
        word
        for attribute in ("pattern", "shape", "tier")
        for value in taxonomy.VALUES[attribute]
        for word in (value, *taxonomy.words(attribute, value))
    }
    for row in products.values():
        text = " ".join(row[name] for name in ("title", "description", "brand", "category")).lower()
        assert not [word for word in words if re.search(rf"\b{re.escape(word)}\b", text)], text


def test_places_and_ids_tell_no_hidden_attribute(truth):
    """Neighbours in the file, and in the order of ids, share a pattern no more often than chance."""
    for order in (truth["products"], sorted(truth["products"], key=lambda product: product["product_id"])):
        for name in ("pattern", "shape", "tier"):
            values = [product[name] for product in order]
            same = np.mean([a == b for a, b in pairwise(values)])
            chance = sum((count / len(values)) ** 2 for count in Counter(values).values())
            assert abs(same - chance) < 4 * np.sqrt(chance * (1 - chance) / len(values)), name


def test_pictures_open_and_name_nothing(folder, products):
    with zipfile.ZipFile(folder / "images.zip") as archive:
        names = set(archive.namelist())
        assert {row["image"] for row in products.values() if row["image"]} <= names
        for name in sorted(names)[:20]:
            picture = Image.open(io.BytesIO(archive.read(name)))
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert all(re.fullmatch(r"[pq]\d+\.jpg", name) for name in names)


def test_no_query_shows_a_catalogue_picture_and_no_text_comes_twice(folder, products):
    queries = rows(folder / "queries.jsonl")
    with zipfile.ZipFile(folder / "images.zip") as archive:
        catalogue = {hashlib.sha256(archive.read(row["image"])).digest() for row in products.values() if row["image"]}
        asked = [hashlib.sha256(archive.read(query["image"])).digest() for query in queries if query["image"]]
    assert asked
    assert not catalogue & set(asked)
    texts = [query["text"] for query in queries if query["kind"] == "text"]
    assert len(texts) == len(set(texts))
    assert {query["kind"] for query in queries} == {"text", "mixed", "image"}  # nothing is spoken without speech
    for query in queries:
        assert bool(query["text"]) == (query["kind"] != "image")


def grades(truth: dict) -> np.ndarray:
    """[Q, N] from the true attributes, by the rules as docs/SHOP.md says them."""
    table = np.zeros((len(truth["queries"]), len(truth["products"])))
    for row, query in enumerate(truth["queries"]):
        for column, product in enumerate(truth["products"]):
            if product["type"] == query["type"]:
                wrong = sum(product[name] != value for name, value in query["wanted"].items())
                table[row, column] = 3 if wrong == 0 else 2 if wrong == 1 and len(query["wanted"]) > 1 else 1
    return table


def test_judgments_follow_from_the_true_attributes(folder, truth):
    table = grades(truth)
    ids = [product["product_id"] for product in truth["products"]]
    expected = {
        (query["query_id"], ids[column]): table[row, column]
        for row, query in enumerate(truth["queries"])
        for column in np.flatnonzero(table[row])
    }
    written = {(row["query_id"], row["product_id"]): float(row["grade"]) for row in rows(folder / "judgments.csv")}
    assert written == expected
    assert (table.max(axis=1) == 3).all()  # every query has a product that fits


def test_price_tiers_are_thirds_of_the_prices_of_a_type(truth, products):
    for kind in taxonomy.TYPES:
        known = [
            (float(products[p["product_id"]]["price"]), list(taxonomy.TIERS).index(p["tier"]))
            for p in truth["products"]
            if p["type"] == kind and products[p["product_id"]]["price"]
        ]
        assert [tier for _, tier in sorted(known)] == sorted(tier for _, tier in known)
        assert set(Counter(tier for _, tier in known)) == {0, 1, 2}


def test_oracles(truth):
    """One modality alone stays well below all of them, and all of them near the truth; chance is what it should be."""
    found = truth["honesty"]["ndcg@10"]
    table = grades(truth)
    assert found["truth"] == 1.0
    assert ndcg_at_k(-np.sort(-table, axis=1), table).min() == pytest.approx(1.0)
    best = max(found[name] for name in ("text", "image", "price"))
    assert best < found["all modalities"] - 0.1
    assert found["all modalities"] > 0.9
    draw = np.random.default_rng(0)
    shuffled = [ndcg_at_k(draw.permuted(table, axis=1), table).mean() for _ in range(20)]
    assert found["chance"] == pytest.approx(np.mean(shuffled), abs=0.03)
    answerable = truth["honesty"]["answerable"]
    assert answerable["all modalities"] == 1.0
    assert max(answerable[name] for name in ("text", "image", "price")) < 0.6


def test_clicks_follow_taste(folder, truth):
    kinds = {product["product_id"]: product for product in truth["products"]}
    tastes = {user["user_id"]: user for user in truth["users"]}
    shown, clicked = Counter(), Counter()
    for event in rows(folder / "events.jsonl"):
        user, product = tastes[event["user_id"]], kinds[event["product_id"]]
        liked = (product["type"] in user["types"]) + (product["pattern"] in user["patterns"])
        shown[liked] += event["type"] == "impression"
        clicked[liked] += event["type"] == "click"
    rates = [clicked[liked] / shown[liked] for liked in range(3)]
    assert rates[2] > 1.5 * rates[1] > 1.5 * 1.5 * rates[0]


def test_every_reaction_belongs_to_something_shown(folder):
    events = rows(folder / "events.jsonl")
    shown = {(e["request_id"], e["product_id"], e["position"]) for e in events if e["type"] == "impression"}
    assert all((e["request_id"], e["product_id"], e["position"]) in shown for e in events)
    assert set(Counter(event["type"] for event in events)) == {"impression", "click", "view", "add_to_cart", "purchase"}


def test_without_espeak_there_is_no_audio_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "available", lambda: False)
    wanted = {"products": 100, "users": 10, "queries": 20, "seed": 4}
    summary = write_shop(tmp_path / "missing", **wanted, with_speech=True)
    write_shop(tmp_path / "off", **wanted, with_speech=False)
    assert summary["speech"] is False
    assert not (tmp_path / "missing" / "audio.zip").exists()
    assert not any(row["audio"] for row in rows(tmp_path / "missing" / "products.csv"))
    for file in (tmp_path / "off").iterdir():
        assert file.read_bytes() == (tmp_path / "missing" / file.name).read_bytes()


@pytest.mark.skipif(not speech.available(), reason="espeakng-loader is not installed")
def test_spoken_names_are_sounds_of_their_own(tmp_path):
    write_shop(tmp_path, 100, 10, 20, seed=4, with_speech=True)
    named = [row["audio"] for row in rows(tmp_path / "products.csv") if row["audio"]]
    assert 0.2 < len(named) / 100 < 0.5
    import soundfile

    with zipfile.ZipFile(tmp_path / "audio.zip") as archive:
        for name in named[:10]:
            samples, rate = soundfile.read(io.BytesIO(archive.read(name)))
            assert samples.ndim == 1
            assert 0.3 < len(samples) / rate < 4
            assert np.abs(samples).max() > 0.05


def test_a_hidden_price_shows_in_no_event(folder, products):
    hidden = {product_id for product_id, row in products.items() if not row["price"]}
    bought = [event for event in rows(folder / "events.jsonl") if event["type"] == "purchase"]
    assert any(event["product_id"] in hidden for event in bought)
    assert all(("value" in event) == (event["product_id"] not in hidden) for event in bought)


def test_no_two_queries_want_the_same(truth):
    wants = [(query["type"], *sorted(query["wanted"].items())) for query in truth["queries"]]
    assert len(set(wants)) == len(wants)


def test_searches_are_clicked_by_grade_taste_and_place(folder, truth):
    """Click rates of search pages, counted from the files alone."""
    events = [event for event in rows(folder / "events.jsonl") if event.get("query_id")]
    assert 10 * NUMBERS["users"] <= len({event["request_id"] for event in events}) <= 16 * NUMBERS["users"]
    grades = {(row["query_id"], row["product_id"]): int(row["grade"]) for row in rows(folder / "judgments.csv")}
    users = {user["user_id"]: user for user in truth["users"]}
    facts = {product["product_id"]: product for product in truth["products"]}
    kinds = {query["query_id"]: query["type"] for query in truth["queries"]}
    clicked = {(e["request_id"], e["product_id"]) for e in events if e["type"] == "click"}
    seen = []  # grade, tastes met, position, clicked
    for event in events:
        if event["type"] != "impression":
            continue
        user, product = users[event["user_id"]], facts[event["product_id"]]
        assert kinds[event["query_id"]] == product["type"] in user["types"]
        met = sum(product[name] in user[f"{name}s"] for name in ("colour", "pattern"))
        place = event["request_id"], event["product_id"]
        seen.append((grades[event["query_id"], event["product_id"]], met, event["position"], place in clicked))
    table = np.array(seen, float)
    rate = [
        [table[table[:, axis] == value, 3].mean() for value in values] for axis, values in ((0, (1, 2, 3)), (1, (0, 1)))
    ]
    assert rate[0][0] < rate[0][1] < rate[0][2]
    assert rate[1][1] > 1.3 * rate[1][0]
    late, early = table[table[:, 2] >= 6], table[table[:, 2] < 2]
    assert early[:, 3].mean() > late[:, 3].mean()
    assert early[:, 0].mean() > late[:, 0].mean()  # the page ranks by grade, not by taste
    assert abs(early[:, 1].mean() - late[:, 1].mean()) < 0.15


def test_a_user_clicks_a_product_in_one_answer_only(folder):
    clicks = [(e["user_id"], e["product_id"]) for e in rows(folder / "events.jsonl") if e["type"] == "click"]
    assert len(set(clicks)) == len(clicks)


def test_without_speech_no_figure_counts_it(truth):
    assert truth["honesty"]["answerable"]["audio"] == 0
