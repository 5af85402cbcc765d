"""The evaluate stage on a tiny real generation: figures equal an independent computation, and bad input is named."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuserank import config
from fuserank.errors import InputError
from fuserank.evaluation.metrics import id_metrics
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import feature_schema, feature_writer
from fuserank.records.schema import EVENT, JUDGMENT, QUERY
from fuserank.retrieval.generation import current_generation
from workloads import evaluate

SERVE_SHOP = Path(__file__).resolve().parents[1] / "serve" / "shop.py"


@pytest.fixture(scope="module")
def shop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_shop", SERVE_SHOP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_shop"] = module
    spec.loader.exec_module(module)
    return module


def write_preprocess(root: Path, shop: ModuleType, split: str = "evaluation") -> None:
    """Twenty queries "colour kind": by text, by picture, or both; every third is of another split."""
    folder = root / "tiny" / "preprocess"
    featurizer = Featurizer.load(root / "featurizer")
    queries, judgments, features = [], [], []
    products = shop.products(folder / "media").to_pylist()
    for number, (colour, kind) in enumerate((c, k) for c in shop.COLOURS for k in shop.KINDS):
        query_id, by_picture = f"q{number:02d}", number % 4 == 1
        words = None if number % 8 == 1 else f"{colour} {kind}"
        queries.append(
            {
                "query_id": query_id,
                "text": words,
                "image": products[number]["images"][0] if by_picture and products[number]["images"] else None,
                "split": "training" if number % 3 == 2 else split,
                "group": "seen" if number % 2 else "unseen",
            }
        )
        for product in products:
            match = (colour in product["title"]) + (kind in product["title"])
            if kind in product["title"]:
                judgments.append({"query_id": query_id, "product_id": product["product_id"], "grade": float(match)})
        picture = featurizer.image(shop.picture(colour)).tobytes() if queries[-1]["image"] else None
        tokens = featurizer.text([words])[0] if words else None
        features.append({"query_id": query_id, "tokens": tokens, "image": picture, "audio": None, "price": None})
    pq.write_table(pa.Table.from_pylist(queries, QUERY), folder / "queries.parquet")
    pq.write_table(pa.Table.from_pylist(judgments, JUDGMENT), folder / "judgments.parquet")
    schema = feature_schema("query_id", featurizer.settings)
    with feature_writer(folder / "query_features.parquet", schema) as out:
        out.write_table(pa.Table.from_pylist(features, schema))
    events = [
        {
            "event_id": f"e{user}-{step}",
            "type": "click",
            "user_id": f"u{user}",
            "product_id": products[(user * 3 + step * 4) % 39]["product_id"],
            "timestamp": step * 1000,
        }
        for user in range(12)
        for step in range(1 + user % 6)
    ]
    pq.write_table(pa.Table.from_pylist(events, EVENT), folder / "events.parquet")
    (folder / "manifest.json").write_text(json.dumps({"digest": "made by a test"}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shop):
    root = tmp_path_factory.mktemp("evaluate")
    experiment = config.update(shop.build_run(root), {"evaluate.bootstrap": 200, "evaluate.examples": 3})
    write_preprocess(root, shop)
    return experiment, evaluate.run(experiment), root / "tiny"


def test_writes_everything_it_says(finished):
    _, manifest, run = finished
    folder = run / "evaluate"
    assert {path.name for path in folder.iterdir()} >= {
        "report.html",
        "metrics.json",
        "per_query.parquet",
        "per_user.parquet",
        "plots",
        "manifest.json",
    }
    assert len(list((folder / "plots").glob("*.png"))) == 4
    html = (folder / "report.html").read_text()
    assert "data:image/jpeg;base64," in html  # pictures of products
    assert html.count('<section class="example">') == 3
    assert manifest["summary"]["queries"] == 14


def test_bm25_and_served_equal_an_independent_ranking(finished):
    """BM25's ranking is redone with ids through the generation's own index; the whole catalogue is the same one."""
    _, _, run = finished
    catalogue = current_generation(run / "index").catalogue
    queries = [
        q for q in pq.read_table(run / "preprocess" / "queries.parquet").to_pylist() if q["split"] == "evaluation"
    ]
    judged: dict[str, dict[str, float]] = {q["query_id"]: {} for q in queries}
    for row in pq.read_table(run / "preprocess" / "judgments.parquet").to_pylist():
        if row["query_id"] in judged:
            judged[row["query_id"]][row["product_id"]] = row["grade"]
    rows, _ = catalogue.lexical_index.search([q["text"] or "" for q in queries], catalogue.size)
    ranked = [[catalogue.ids[row] for row in found if row >= 0] for found in rows]
    want = id_metrics(ranked, [judged[q["query_id"]] for q in queries])
    table = pq.read_table(run / "evaluate" / "per_query.parquet").to_pylist()
    got = [row for row in table if row["variant"] == "all text" and row["system"] == "bm25"]
    for name in ("ndcg@10", "recall@100", "mrr", "map"):
        np.testing.assert_allclose([row[name] for row in got], want[name])
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
    systems = metrics["variants"]["all text"]["slices"]["all queries"]["systems"]
    assert list(systems) == ["bm25", "text", "image", "price", "fused", "served"]
    assert systems["bm25"]["ndcg@10"]["mean"] == pytest.approx(np.nanmean(want["ndcg@10"]), abs=1e-6)


def test_hiding_text_costs_the_systems_that_read_it_and_only_them(finished):
    _, _, run = finished
    variants = json.loads((run / "evaluate" / "metrics.json").read_text())["variants"]
    hidden = next(name for name in variants if name.startswith("text hidden for 50%"))
    before, after = (
        {
            system: found["recall@100"]["mean"]
            for system, found in variants[name]["slices"]["all queries"]["systems"].items()
        }
        for name in ("all text", hidden)
    )
    assert after["bm25"] < before["bm25"]
    assert after["text"] < before["text"]
    assert after["image"] == before["image"]
    assert after["price"] == before["price"]
    assert "without text" in variants[hidden]["missing"]["served"]
    assert variants[hidden]["missing"]["text"]["without text"]["mean"] == 0.0


def test_recommendation_counts_users(finished):
    _, _, run = finished
    found = json.loads((run / "evaluate" / "metrics.json").read_text())["recommendation"]
    assert found["users"] == 10  # two users have a single event
    assert found["left_out"] == 2
    users = pq.read_table(run / "evaluate" / "per_user.parquet")
    assert set(users["system"].to_pylist()) == {"recommender", "neighbours", "popularity"}
    assert min(users["rank"].to_pylist()) >= 1


def test_a_second_run_is_skipped_and_gives_the_same(finished):
    experiment, manifest, _ = finished
    assert evaluate.run(experiment) == manifest


def test_no_evaluation_query_is_named(tmp_path, shop):
    experiment = shop.build_run(tmp_path)
    write_preprocess(tmp_path, shop, split="validation")
    with pytest.raises(InputError, match="no query is in the evaluation split"):
        evaluate.run(experiment)
