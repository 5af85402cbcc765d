"""The evaluate stage on a tiny real generation: figures equal an independent computation, and bad input is named."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from fuserank import config
from fuserank.errors import InputError
from fuserank.evaluation.against import RECOMMENDATION, open_evaluated
from fuserank.evaluation.metrics import id_metrics
from fuserank.retrieval.generation import current_generation
from tests.workloads import tiny
from workloads import evaluate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    experiment = config.update(tiny.build_run(root), {"evaluate.bootstrap": 200, "evaluate.examples": 3})
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
    assert list(systems) == ["bm25", "text", "image", "price", "attributes", "late", "fused", "hybrid", "served"]
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
    assert set(users["system"].to_pylist()) == {"recommended", "recommender", "neighbours", "popularity"}
    assert min(users["rank"].to_pylist()) >= 1


def test_a_second_run_is_skipped_and_gives_the_same(finished):
    experiment, manifest, _ = finished
    assert evaluate.run(experiment) == manifest


def test_no_evaluation_query_is_named(tmp_path):
    experiment = tiny.build_run(tmp_path, held_out="validation")
    with pytest.raises(InputError, match="no query is in the evaluation split"):
        evaluate.run(experiment)


def test_a_shop_that_nobody_has_searched_is_judged_by_its_recommendations(finished, tmp_path):
    """sequences.yaml is such a shop: events alone. The figures of its users are those of the same shop with queries."""
    experiment = config.update(tiny.build_run(tmp_path), {"evaluate.bootstrap": 200})
    preprocess = tmp_path / "tiny" / "preprocess"
    for name in ("queries", "judgments"):
        table = pq.read_table(preprocess / f"{name}.parquet")
        pq.write_table(table.slice(0, 0), preprocess / f"{name}.parquet")
    manifest, folder = evaluate.run(experiment), tmp_path / "tiny" / "evaluate"
    assert manifest["summary"]["queries"] == 0
    assert not (folder / "per_query.parquet").exists()
    assert "Nobody has searched this shop" in (folder / "report.html").read_text()
    searched = pq.read_table(finished[2] / "evaluate" / "per_user.parquet")
    assert pq.read_table(folder / "per_user.parquet").equals(searched)
    assert open_evaluated(folder).values.keys() == {RECOMMENDATION}
