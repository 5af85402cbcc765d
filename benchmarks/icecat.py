"""Words, vectors, both, and both reranked on a real electronics shop: icecat's 19,406 products and the judgments of its
queries, by cross-validation over queries.

Run: `python benchmarks/icecat.py --data DIR [--model FOLDER] [--runs DIR] [--seed N] [--json FILE]`.

DIR holds icecat's files, FOLDER a saved text encoder such as all-MiniLM-L6-v2 (without one, a small network trained on
the shop's own text). No query trains an encoder. The weight of words and the reranker are fitted on four fifths of the
queries by `fuserank index`'s own code, and rank the whole catalogue for the last fifth; five times, so that every query
is ranked once by what has not seen it. Unjudged products count as wrong, and `judged@10` says how many were judged;
`judged_only` ranks the judged products alone. Queries without one product of grade 1 or more are left out.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT)]

from fuserank import config  # noqa: E402
from fuserank.artifacts import stage_folder  # noqa: E402
from fuserank.evaluation.intervals import interval, paired_difference  # noqa: E402
from fuserank.evaluation.metrics import grades_of, ndcg_at_k, rank_rows  # noqa: E402
from fuserank.features.featurizer import Featurizer  # noqa: E402
from fuserank.feedback.behaviour import Behaviour  # noqa: E402
from fuserank.models.fused import FusedModel  # noqa: E402
from fuserank.models.reranker import Reranker  # noqa: E402
from fuserank.retrieval.catalogue import Catalogue  # noqa: E402
from fuserank.retrieval.hybrid import Hybrid  # noqa: E402
from fuserank.retrieval.pipeline import Retriever, SearchRequest  # noqa: E402
from fuserank.retrieval.rerank_inputs import placed, rerank, rerank_inputs  # noqa: E402
from fuserank.training.cached import SIDES, open_overlay  # noqa: E402
from fuserank.training.calibrate import calibrate  # noqa: E402
from fuserank.training.data import RankingData  # noqa: E402
from fuserank.training.encode import encode_table  # noqa: E402
from fuserank.training.splits import Splits, open_splits  # noqa: E402
from fuserank.training.start import new_model  # noqa: E402
from workloads import preprocess, pretrain, reranking  # noqa: E402
from workloads.cluster import connect  # noqa: E402
from workloads.encoding import encode_frozen  # noqa: E402
from workloads.index import query_texts  # noqa: E402
from workloads.ranking import Questions, open_questions, system_orders  # noqa: E402

FOLDS, RELEVANT = 5, 2.0
SYSTEMS = ("bm25", "fused", "hybrid", "served")
SHOWN = {"bm25": "BM25", "fused": "vectors", "hybrid": "both", "served": "both, reranked"}
METRICS = ("ndcg@10", "recall@100", "judged@10", "judged_only")
CPU = torch.device("cpu")


def prepared(options: argparse.Namespace) -> config.Experiment:
    """icecat.yaml, text alone, all queries kept for judging."""
    sets = {
        "storage.root": str(options.runs.resolve()),
        "records.root": str(options.data.resolve()),
        "records.split.modulus": 10,
        "records.split.validation": [],
        "records.split.evaluation": list(range(10)),
        "preprocess.text_tokens": 96,
        "encoders.price": None,
        "encoders.attributes": None,
        "evaluate.hidden_text": 0,
        "fusion.kind": "concat",
    }
    if options.model:
        sets |= {"encoders.text.model": options.model, "preprocess.tokenizer": options.model, "fusion.width": 384}
        sets |= {"pretrain.text.epochs": 0}
    experiment = config.update(config.load(ROOT / "workloads" / "configs" / "icecat.yaml"), sets)
    preprocess.run(experiment)
    pretrain.run(experiment)
    return experiment


def opened(experiment: config.Experiment) -> tuple[FusedModel, Splits, reranking.Shop]:
    """The model as pre-training left it, its inputs, and the encoded catalogue."""
    folder = stage_folder(experiment, "preprocess")
    model = new_model(experiment, folder, stage_folder(experiment, "pretrain"))
    cache = encode_frozen(experiment, ("text",))
    held, asked = (open_overlay(folder, cache, side, ("text",)) for side in SIDES)
    splits = open_splits(folder, model.modalities, 0, held, asked)
    known = splits.train
    everything = (np.arange(len(held.ids)), np.arange(len(asked.ids)))
    calibrate(model, RankingData(held, asked, known.judgments, *everything, known.modalities, known.columns), 0)
    model.eval()
    products = pq.read_table(folder / "products.parquet")
    rows = np.arange(products.num_rows)
    vectors, mask = encode_table(model, splits.train.products, rows, splits.columns, "product", CPU)
    featurizer = Featurizer.load(folder)
    texts = [featurizer.product_words(row) for row in products.to_pylist()]
    return model, splits, reranking.Shop(products, texts, vectors.half().float(), mask)


def parts(questions: Questions, kept: np.ndarray) -> Questions:
    """Some of the questions."""
    return Questions(
        questions.table.take(kept),
        [questions.text[i] for i in kept],
        questions.vectors[kept],
        questions.heads[kept],
        questions.grades[kept],
    )


def judged_only(
    reranker: Reranker,
    hybrid: Hybrid,
    catalogue: Catalogue,
    questions: Questions,
    judged: list[np.ndarray],
) -> dict[str, np.ndarray]:
    """System → nDCG@10 of each question when only what was judged is ranked."""
    found: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    retriever, nothing = Retriever(catalogue, hybrid), Behaviour.nothing(catalogue.size)
    for i, rows in enumerate(judged):
        request = SearchRequest(questions.text[i], questions.vectors[i], questions.heads[i])
        told = retriever.score(request, rows)
        told = told.take(np.argsort(-told.score, kind="stable"))
        seen = rerank_inputs(told, questions.heads[i], catalogue, nothing, [])
        scores = {"bm25": told.lexical, "fused": told.fused, "hybrid": told.score}
        scores["served"] = placed(told.score, rerank(reranker, seen))
        grades = questions.grades[i][told.rows][None]
        for system, score in scores.items():
            found[system].append(float(ndcg_at_k(grades_of(rank_rows(score[None]), grades), grades)[0]))
    return {system: np.array(values) for system, values in found.items()}


def measure(experiment: config.Experiment, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """System → metric → one value a query."""
    model, splits, shop = opened(experiment)
    folder = stage_folder(experiment, "preprocess")
    ids = shop.products["product_id"].to_pylist()
    questions = open_questions(folder, model, ids)
    rated = pq.read_table(folder / "judgments.parquet").to_pydict()
    row, column = (
        {name: i for i, name in enumerate(names)} for names in (questions.table["query_id"].to_pylist(), ids)
    )
    judged = [np.zeros(0, np.int64)] * len(row)
    for query, product in zip(rated["query_id"], rated["product_id"], strict=True):
        if product in column:
            judged[row[query]] = np.append(judged[row[query]], column[product])
    kept = np.flatnonzero(questions.grades.max(1) > 0)
    sides = np.random.default_rng(seed).permutation(len(kept)) % FOLDS
    values = {system: {metric: np.full(len(kept), np.nan) for metric in METRICS} for system in SYSTEMS}
    asked = {name: i for i, name in enumerate(splits.train.queries.ids)}
    places = np.array([asked[name] for name in questions.table["query_id"].to_pylist()])
    words = query_texts(experiment)
    for fold in range(FOLDS):
        learnt, held = kept[sides != fold], kept[sides == fold]
        validation = dataclasses.replace(splits.validation, query_rows=places[learnt])
        own = dataclasses.replace(splits, validation=validation)
        reranker, hybrid, behaviour, told = reranking.fit(experiment, model, own, shop, words, CPU)
        Console().print(f"fold {fold + 1}: words count {hybrid.weight:.3f}; {told}", highlight=False)
        mine = parts(questions, held)
        with tempfile.TemporaryDirectory() as scratch:
            catalogue = reranking.catalogue_of(
                model, shop.products, shop.vectors, shop.mask, shop.texts, Path(scratch), experiment.index.typos, CPU
            )
            depth, candidates = experiment.index.rerank_depth, experiment.index.candidates
            orders = system_orders(model, reranker, behaviour, catalogue, mine, candidates, hybrid, depth)
            alone = judged_only(reranker, hybrid, catalogue, mine, [judged[i] for i in held])
        for system in SYSTEMS:
            own_values = values[system]
            own_values["ndcg@10"][sides == fold] = ndcg_at_k(grades_of(orders[system], mine.grades), mine.grades)
            own_values["judged_only"][sides == fold] = alone[system]
            for place, i, order in zip(np.flatnonzero(sides == fold), held, orders[system], strict=True):
                good = np.flatnonzero(questions.grades[i] >= RELEVANT)
                if len(good):
                    own_values["recall@100"][place] = np.isin(good, order[:100]).mean()
                own_values["judged@10"][place] = np.isin(order[:10][order[:10] >= 0], judged[i]).sum() / 10
    return values


def show(values: dict[str, dict[str, np.ndarray]], seed: int) -> dict[str, float]:
    """A table; plain names → figures."""
    console, found = Console(), {}
    table = Table("ranked by", *METRICS)
    for system in SYSTEMS:
        cells = []
        for metric in METRICS:
            told = interval(values[system][metric][~np.isnan(values[system][metric])], seed=seed)
            found[f"{system}_{metric}"] = told.mean
            cells.append(f"{told.mean:.3f} ({told.low:.3f}–{told.high:.3f})")
        table.add_row(SHOWN[system], *cells)
    console.print(table)
    for other in ("bm25", "fused"):
        gain = paired_difference(values["served"]["ndcg@10"], values[other]["ndcg@10"], seed=seed)
        console.print(f"served − {SHOWN[other]}, nDCG@10: {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="folder of a saved text encoder")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "icecat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with connect():
        values = measure(prepared(options), options.seed)
    found = show(values, options.seed)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
