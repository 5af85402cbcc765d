"""`fuserank evaluate`: full-catalogue ranking of held-out queries by every system, with intervals and a report.

Reads preprocess/ (queries, judgments, events, features, media) and the live generation of index/. Writes evaluate/:
report.html, metrics.json, per_query.parquet, per_user.parquet (where there is a recommender) and plots/.
Q queries · N products of the evaluation catalogue · M modalities · D, E widths of modality and fused vectors.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from fuserank.artifacts import run_stage, stage_folder, write_json
from fuserank.config import Experiment
from fuserank.errors import InputError
from fuserank.evaluation import report
from fuserank.evaluation.intervals import interval, seed_of
from fuserank.evaluation.metrics import rank_rows
from fuserank.evaluation.page import Example, Hit, thumbnail
from fuserank.evaluation.slices import ALL, hidden_half, query_slices, recall_without
from fuserank.evaluation.systems import Values, best_of, compare, measure, modality_orders
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.models.checkpoint import load_model, load_weights
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker, candidate_features, feature_names
from fuserank.records.schema import MODALITIES
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.generation import Generation, current_generation
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.vectors import VectorIndex
from fuserank.training.encode import encode_table
from workloads.progress import say
from workloads.recommendation import evaluate_recommendation

EXAMPLE_HITS = 5


@dataclass(frozen=True)
class Questions:
    """The evaluation queries, encoded once."""

    table: pa.Table  # QUERY
    text: list[str]
    vector: np.ndarray  # float32 [Q, E]
    heads: np.ndarray  # float32 [Q, M, D]: the query as each modality of a product is asked
    grades: np.ndarray  # float32 [Q, N]


def run(experiment: Experiment) -> dict:
    """The stage's manifest; its summary holds the headline figures."""
    return run_stage(experiment, "evaluate", lambda folder: _evaluate(experiment, folder), say=say)


def _evaluate(experiment: Experiment, folder: Path) -> dict:
    settings, preprocess = experiment.evaluate, stage_folder(experiment, "preprocess")
    generation = current_generation(stage_folder(experiment, "index"))
    model = load_model(generation.model_folder)
    reranker = Reranker(len(feature_names(model.modalities))).eval()
    load_weights(reranker, generation.model_folder / "reranker.safetensors")
    texts = _texts(generation)
    rows = _evaluation_rows(generation, by_product=experiment.records.split.by == "product")
    questions = _questions(preprocess, model, [generation.catalogue.ids[row] for row in rows])
    slices = query_slices(questions.table)
    variants: dict[str, dict] = {}
    every: dict[str, tuple[dict[str, np.ndarray], Values]] = {}
    histograms: dict[str, dict[str, np.ndarray]] = {}
    hidden = hidden_half(
        [generation.catalogue.ids[row] for row in rows], settings.hidden_text, seed_of(experiment.seed, "hidden")
    )
    names = {"all text": np.zeros(len(rows), dtype=bool)}
    if settings.hidden_text > 0 and "text" in model.modalities:
        names[f"text hidden for {settings.hidden_text:.0%} of products"] = hidden
    main = f"ndcg@{settings.k}"
    for name, without_text in names.items():
        with tempfile.TemporaryDirectory() as scratch:
            catalogue = _catalogue(
                generation, model, rows, without_text, texts, Path(scratch), experiment.index.vectors
            )
            orders = _orders(model, reranker, catalogue, questions, experiment.index.candidates)
        values = measure(orders, questions.grades, settings.k, settings.recall_k, settings.relevant)
        single = best_of(values, model.modalities, main)
        pairs = [(a, b) for a in ("served", "fused") for b in ("bm25", single) if b is not None]
        pairs.append(("served", "fused"))
        missing = {
            system: {
                group: interval(found, settings.bootstrap, seed=seed_of(experiment.seed, name, group)).as_dict()
                for group, found in recall_without(
                    orders[system],
                    questions.grades,
                    catalogue.mask,
                    model.modalities,
                    settings.recall_k,
                    settings.relevant,
                ).items()
            }
            for system in orders
        }
        variants[name] = {
            "single": single,
            "slices": compare(values, slices, pairs, settings.bootstrap, experiment.seed),
            "missing": missing,
        }
        histograms[name] = {
            f"{report.label(a)} − {report.label(b)}": values[a][main] - values[b][main]
            for a, b in pairs
            if a == "served"
        }
        every[name] = (orders, values)
    recommendation, per_user = evaluate_recommendation(experiment, preprocess, generation, model)
    metrics = {
        "run": {
            "name": experiment.name,
            "generation": generation.id,
            "products": len(rows),
            "queries": len(questions.text),
            "left_out": int((~(questions.grades >= settings.relevant).any(axis=1)).sum()),
            "k": settings.k,
            "recall_k": settings.recall_k,
            "relevant": settings.relevant,
            "samples": settings.bootstrap,
            "seed": experiment.seed,
        },
        "variants": variants,
        "recommendation": recommendation,
    }
    orders, _ = every["all text"]
    examples = _examples(experiment, questions, orders, generation, rows, preprocess / "media")
    html, images = report.build(metrics, histograms, examples)
    (folder / "plots").mkdir(exist_ok=True)
    for name, png in images.items():
        (folder / "plots" / name).write_bytes(png)
    pq.write_table(
        _per_query(questions, {name: values for name, (_, values) in every.items()}), folder / "per_query.parquet"
    )
    if per_user is not None:
        pq.write_table(per_user, folder / "per_user.parquet")
    (folder / "report.html").write_text(html, encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    return {name: _headline(found["slices"][ALL], main) for name, found in variants.items()}


def _headline(found: dict, metric: str) -> dict:
    return {
        metric: {system: values[metric]["mean"] for system, values in found["systems"].items()},
        "differences": {f"{row['a']} - {row['b']}": row[metric] for row in found["differences"]},
    }


def _texts(generation: Generation) -> list[str]:
    """What word search reads of every product."""
    featurizer = Featurizer.load(generation.featurizer_folder)
    return [featurizer.product_text(product) for product in generation.catalogue.products.to_pylist()]


def _evaluation_rows(generation: Generation, by_product: bool) -> np.ndarray:
    """Rows of the catalogue that held-out queries search: held-out products where products are split, else all."""
    if not by_product:
        return np.arange(generation.catalogue.size)
    split = generation.catalogue.products["split"]
    rows = np.flatnonzero(pc.equal(split, "evaluation").to_numpy(zero_copy_only=False))
    if not len(rows):
        raise InputError("no product is in the evaluation split.", "Check records.split.")
    return rows


def _questions(preprocess: Path, model: FusedModel, product_ids: list[str]) -> Questions:
    table = pq.read_table(preprocess / "queries.parquet")
    table = table.filter(pc.equal(table["split"], "evaluation"))
    if not table.num_rows:
        raise InputError("no query is in the evaluation split.", "Check records.split and the number of queries.")
    features = FeatureTable.open(preprocess / "query_features.parquet")
    ids: list[str] = table["query_id"].to_pylist()
    columns = [MODALITIES.index(modality) for modality in model.modalities]
    vectors, mask = encode_table(model, features, features.rows(ids), columns, "query", torch.device("cpu"))
    with torch.inference_mode():
        fused, heads = model.search_vectors(vectors, mask)
    place = {query: i for i, query in enumerate(ids)}
    column = {product: i for i, product in enumerate(product_ids)}
    grades = np.zeros((len(ids), len(product_ids)), np.float32)
    judgments = pq.read_table(preprocess / "judgments.parquet")
    judgments = judgments.filter(pc.is_in(judgments["query_id"], pa.array(ids)))
    for query, product, grade in zip(
        *(judgments[name].to_pylist() for name in ("query_id", "product_id", "grade")), strict=True
    ):
        if product in column:
            grades[place[query], column[product]] = grade
    return Questions(table, [text or "" for text in table["text"].to_pylist()], fused.numpy(), heads.numpy(), grades)


def _catalogue(
    generation: Generation,
    model: FusedModel,
    rows: np.ndarray,
    hidden: np.ndarray,
    texts: list[str],
    folder: Path,
    kind,
) -> Catalogue:
    """The evaluation products, searched exactly as serving would; text is masked where `hidden` [N]."""
    whole = generation.catalogue
    modality_vectors, mask = whole.modality_vectors[rows], whole.mask[rows].copy()
    if hidden.any():
        mask[hidden, model.modalities.index("text")] = False
        with torch.inference_mode():
            known = torch.from_numpy(modality_vectors.astype(np.float32))
            vectors = model.product_vectors(known, torch.from_numpy(mask)).numpy()
    else:
        vectors = np.asarray(whole.vectors[rows])
    shown = ["" if hide else texts[row] for row, hide in zip(rows, hidden, strict=True)]
    lexical = LexicalIndex.build(shown, folder / "lexical")
    products = whole.products.take(pa.array(rows))
    return Catalogue(products, vectors, modality_vectors, mask, VectorIndex.build(vectors, kind), lexical)


def _orders(
    model: FusedModel, reranker: Reranker, catalogue: Catalogue, questions: Questions, candidates: int
) -> dict[str, np.ndarray]:
    """System → int64 [Q, R] rows, best first."""
    size = catalogue.size
    orders = {"bm25": catalogue.lexical_index.search(questions.text, size)[0]}
    orders |= modality_orders(questions.heads, catalogue.modality_vectors, catalogue.mask, model.modalities)
    orders["fused"] = rank_rows(questions.vector @ catalogue.vectors.T)
    requests = [
        SearchRequest(text or None, vector, heads, candidates=candidates)
        for text, vector, heads in zip(questions.text, questions.vector, questions.heads, strict=True)
    ]
    served = np.full((len(requests), min(2 * candidates, size)), -1, np.int64)
    for row, found in enumerate(Retriever(catalogue).search(requests)):
        features = candidate_features(found.fused, found.lexical, found.modalities, found.mask)
        with torch.inference_mode():
            scores = reranker(torch.from_numpy(features)[None])[0].numpy()
        served[row, : len(found)] = found.rows[np.argsort(-scores, kind="stable")]
    return orders | {"served": served}


def _examples(
    experiment: Experiment,
    questions: Questions,
    orders: dict[str, np.ndarray],
    generation: Generation,
    rows: np.ndarray,
    media: Path,
) -> list[Example]:
    """Queries drawn with the run's seed, with the first hits of BM25 and of the fused vectors."""
    judged = np.flatnonzero((questions.grades > 0).any(axis=1))
    random = np.random.default_rng(seed_of(experiment.seed, "examples"))
    drawn = np.sort(random.permutation(judged)[: experiment.evaluate.examples])

    def picture(name: str | None) -> str | None:
        return thumbnail(media / name[:2] / name) if name else None

    def hit(query: int, row: int) -> Hit:
        product = generation.catalogue.documents(rows[[row]])[0]
        images = product["images"] or [None]
        return Hit(product["title"] or product["product_id"], float(questions.grades[query, row]), picture(images[0]))

    found = []
    for query in drawn:
        record = questions.table.slice(int(query), 1).to_pylist()[0]
        sides = {
            report.label(system): [hit(query, row) for row in orders[system][query][:EXAMPLE_HITS] if row >= 0]
            for system in ("bm25", "fused")
        }
        notes = " · ".join(part for part in (record["query_id"], record["group"]) if part)
        found.append(Example(record["text"] or "(picture only)", sides, picture(record["image"]), notes))
    return found


def _per_query(questions: Questions, variants: dict[str, Values]) -> pa.Table:
    """One row for each variant, system and query."""
    ids = questions.table["query_id"].to_pylist()
    parts = []
    for variant, values in variants.items():
        for system, metrics in values.items():
            named = {"variant": [variant] * len(ids), "system": [system] * len(ids), "query_id": ids}
            parts.append(pa.table({**named, **metrics}))
    return pa.concat_tables(parts)
