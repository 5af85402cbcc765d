"""Ablation, groups and figures beyond accuracy of a real run, redone product by product."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fuserank import config
from fuserank.evaluation.metrics import id_metrics
from fuserank.models.checkpoint import load_model
from fuserank.retrieval.generation import current_generation
from tests.workloads import tiny
from workloads import evaluate
from workloads.beyond import seen_in_training
from workloads.ranking import open_questions


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("beyond")
    off = {"evaluate.bootstrap": 100, "evaluate.examples": 0, "evaluate.hidden_text": 0.0}
    evaluate.run(config.update(tiny.build_run(root), off))
    metrics = json.loads((root / "tiny" / "evaluate" / "metrics.json").read_text())
    return root / "tiny", metrics["variants"]["all text"], metrics["recommendation"]


def test_ablation_equals_one_product_at_a_time(finished):
    run, found, _ = finished
    generation = current_generation(run / "index")
    catalogue, model = generation.catalogue, load_model(generation.model_folder)
    asked = open_questions(run / "preprocess", model, catalogue.ids)
    judged = [{catalogue.ids[row]: float(grades[row]) for row in np.flatnonzero(grades > 0)} for grades in asked.grades]
    assert set(found["ablation"]["systems"]) == {"fused", *(f"fused without {m}" for m in model.modalities)}
    for column, modality in enumerate(model.modalities):
        scores = np.full((len(asked.text), catalogue.size), -np.inf)
        for row in range(catalogue.size):
            mask = torch.from_numpy(catalogue.mask[row : row + 1].copy())
            mask[0, column] = False
            if mask.any():
                vectors = torch.from_numpy(catalogue.modality_vectors[row : row + 1].astype(np.float32))
                with torch.inference_mode():
                    scores[:, row] = asked.vectors @ model.product_vectors(vectors, mask)[0].numpy()
        ranked = [
            [catalogue.ids[row] for row in np.argsort(-one, kind="stable") if one[row] > -np.inf] for one in scores
        ]
        want = float(np.nanmean(id_metrics(ranked, judged)["ndcg@10"]))
        got = found["ablation"]["systems"][f"fused without {modality}"]["ndcg@10"]["mean"]
        assert got == pytest.approx(want, abs=2e-3), modality  # a batch of one rounds otherwise, which may swap a tie


def test_what_training_has_seen(finished):
    run, _, _ = finished
    folder = run / "preprocess"
    ids = pq.read_table(folder / "products.parquet")["product_id"].to_pylist()
    split = {query["query_id"]: query["split"] for query in pq.read_table(folder / "queries.parquet").to_pylist()}
    judged = {
        row["product_id"]
        for row in pq.read_table(folder / "judgments.parquet").to_pylist()
        if row["grade"] > 0 and split[row["query_id"]] == "training"
    }
    histories: dict[str, list[str]] = {}
    for event in sorted(pq.read_table(folder / "events.parquet").to_pylist(), key=lambda event: event["timestamp"]):
        histories.setdefault(event["user_id"], []).append(event["product_id"])  # no product twice in a row
    trained = [set(history[:-2]) for history in histories.values()]
    counts = [sum(product in history for history in trained) for product in ids]
    seen = seen_in_training(folder, ids)
    assert seen.counts is not None
    assert seen.counts.tolist() == counts
    assert seen.known.tolist() == [product in judged or count > 0 for product, count in zip(ids, counts, strict=True)]
    assert 0 < sum(seen.known) <= len(ids)
    only = next(q for q in split if split[q] == "evaluation")
    table = pq.read_table(folder / "judgments.parquet")
    rows = [row for row in table.to_pylist() if row["query_id"] == only]
    try:  # judged for a held-out query alone: nothing is known of any product but by events
        pq.write_table(table.from_pylist(rows, table.schema), folder / "judgments.parquet")
        assert seen_in_training(folder, ids).known.tolist() == [count > 0 for count in counts]
    finally:
        pq.write_table(table, folder / "judgments.parquet")


def test_figures_of_lists_and_groups(finished):
    run, found, recommendation = finished
    catalogue = current_generation(run / "index").catalogue
    model = load_model(current_generation(run / "index").model_folder)
    asked = open_questions(run / "preprocess", model, catalogue.ids)
    rows, _ = catalogue.lexical_index.search(asked.text, catalogue.size)
    tops = [[row for row in some[:10] if row >= 0] for some in rows.tolist()]
    assert found["beyond"]["bm25"]["coverage"] == pytest.approx(len({r for top in tops for r in top}) / 40, abs=1e-6)
    kinds = [path[1] for path in catalogue.products["category"].to_pylist()]
    divergences = []
    for top, grades in zip(tops, asked.grades, strict=True):
        if not top or not grades.any():
            continue
        p = {
            k: sum(g for g, kind in zip(grades.tolist(), kinds, strict=True) if kind == k) / grades.sum()
            for k in set(kinds)
        }
        q = {k: sum(kinds[row] == k for row in top) / len(top) for k in set(kinds)}
        divergences.append(sum(p[k] * math.log(p[k] / (0.99 * q[k] + 0.01 * p[k])) for k in p if p[k]))
    assert found["beyond"]["bm25"]["calibration"]["mean"] == pytest.approx(np.mean(divergences), abs=1e-5)
    assert recommendation["beyond"]["recommender"]["novelty"]["n"] == recommendation["users"]
    shoe = found["groups"]["category"]["shoe"]
    assert shoe["products"] == kinds.count("shoe")
    about = [sum(g >= 1 and kind == "shoe" for g, kind in zip(grades, kinds, strict=True)) for grades in asked.grades]
    assert shoe["systems"]["served"]["n"] == sum(count > 0 for count in about)
