"""`fuserank evaluate`: full-catalogue ranking of held-out queries by every system, with intervals and a report.

Reads preprocess/ (queries, judgments, events, features, media) and the live generation of index/. Writes evaluate/:
report.html, metrics.json, plots/, per_query.parquet (where there are queries) and per_user.parquet (where there is a
recommender). A shop that nobody has searched is judged by its recommendations alone. What training saw and evaluation
asks (evaluation/leaks.py) ends it before it begins.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.artifacts import run_stage, stage_folder, write_json
from fuserank.config import Evaluate, Experiment
from fuserank.evaluation import report
from fuserank.evaluation.against import digest_of, protocol_of
from fuserank.evaluation.intervals import interval, seed_of
from fuserank.evaluation.page import Example, Hit, thumbnail
from fuserank.evaluation.slices import ALL, hidden_half, query_slices, recall_without
from fuserank.evaluation.systems import Values, best_of, compare, measure
from fuserank.evaluation.words import label, short
from workloads.erasing import without_erased
from workloads.progress import say

PARTS = ("evaluate", "leaks", "ablation", "beyond", "ranking", "recommendation", "session_evaluation")
CODE = [Path(__file__).with_name(f"{name}.py") for name in PARTS]
ALL_TEXT = "all text"
EXAMPLE_HITS = 5


def run(experiment: Experiment) -> dict:
    """Run the stage unless it is fresh; returns its manifest, whose summary holds the headline figures."""
    return run_stage(experiment, "evaluate", lambda folder: _evaluate(experiment, folder), code=CODE, say=say)


def _evaluate(experiment: Experiment, folder: Path) -> dict:
    from fuserank.features.featurizer import Featurizer
    from fuserank.feedback.behaviour import Behaviour
    from fuserank.models.checkpoint import load_model, load_reranker
    from fuserank.retrieval.generation import current_generation
    from fuserank.retrieval.hybrid import Hybrid
    from fuserank.retrieval.pipeline import Retriever
    from workloads import leaks
    from workloads.ablation import ablated_orders, ablation
    from workloads.beyond import search_figures
    from workloads.ranking import (
        evaluation_catalogue,
        evaluation_rows,
        no_questions,
        open_questions,
        system_orders,
    )
    from workloads.recommendation import evaluate_recommendation
    from workloads.session_evaluation import evaluate_sessions

    settings, seed = experiment.evaluate, experiment.seed
    preprocess = stage_folder(experiment, "preprocess")
    allowed = leaks.check(experiment, preprocess)
    generation = current_generation(stage_folder(experiment, "index"))
    model = load_model(generation.model_folder)
    reranker = load_reranker(generation.model_folder, model.modalities)
    behaviour, hybrid = Behaviour.load(generation.model_folder), Hybrid.of(generation.manifest)
    featurizer = Featurizer.load(generation.featurizer_folder)
    texts = [featurizer.product_words(product) for product in generation.catalogue.products.to_pylist()]
    rows = evaluation_rows(generation.catalogue.products, experiment.records.split.by == "product")
    ids = [generation.catalogue.ids[row] for row in rows]
    recommendation, per_user = evaluate_recommendation(experiment, preprocess, generation, model)
    searched = recommendation is None or pq.read_metadata(preprocess / "queries.parquet").num_rows > 0
    questions = open_questions(preprocess, model, ids) if searched else no_questions(preprocess, ids)
    hidden = {ALL_TEXT: np.zeros(len(rows), dtype=bool)} if searched else {}
    if searched and settings.hidden_text > 0 and "text" in model.modalities:
        name = f"text hidden for {settings.hidden_text:.0%} of products"
        hidden[name] = hidden_half(ids, settings.hidden_text, seed_of(seed, "hidden text"))
    orders: dict[str, dict[str, np.ndarray]] = {}
    values: dict[str, Values] = {}
    variants: dict[str, dict] = {}
    for name, without_text in hidden.items():
        say(f"evaluate: {len(ids)} products, {len(questions.text)} queries, {name}")
        with tempfile.TemporaryDirectory() as scratch:
            catalogue = evaluation_catalogue(
                generation.catalogue, model, rows, without_text, texts, Path(scratch), experiment.index.vectors
            )
            orders[name] = system_orders(
                model,
                reranker,
                behaviour.take(rows),
                catalogue,
                questions,
                experiment.index.candidates,
                hybrid,
                experiment.index.rerank_depth,
            )
        values[name] = measure(orders[name], questions.grades, settings.k, settings.recall_k, settings.relevant)
        missing = _missing(orders[name], questions.grades, catalogue.mask, model.modalities, settings, seed)
        variants[name] = _compared(values[name], query_slices(questions.table), model.modalities, settings, seed)
        variants[name] |= {"missing": missing, "protocol": {"hidden": digest_of(np.array(ids)[without_text].tolist())}}
        if name == ALL_TEXT:
            variants[name] |= search_figures(
                experiment, preprocess, catalogue, model.modalities, orders[name], questions.grades
            )
            ablated = {"fused": orders[name]["fused"]} | ablated_orders(model, catalogue, questions)
            variants[name]["ablation"] = ablation(ablated, questions.grades, settings, seed)
    sessions = evaluate_sessions(
        experiment, preprocess, model, reranker, behaviour, Retriever(generation.catalogue, hybrid)
    )
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
            "seed": seed,
        },
        "leaks": allowed,
        "protocol": protocol_of(
            questions.table, ids, questions.grades, settings.k, settings.recall_k, settings.relevant
        ),
        "variants": variants,
        "recommendation": recommendation,
        "sessions": sessions,
    }
    products = generation.catalogue.products.take(pa.array(rows))
    examples = _examples(
        questions.table,
        products,
        questions.grades,
        orders.get(ALL_TEXT, {}),
        preprocess / "media",
        settings.examples,
        seed,
    )
    main = f"ndcg@{settings.k}"
    html, images = report.build(
        metrics, {name: _histograms(values[name], variants[name], main) for name in variants}, examples
    )
    (folder / "plots").mkdir(exist_ok=True)
    for name, png in images.items():
        (folder / "plots" / name).write_bytes(png)
    if values:
        pq.write_table(_per_query(questions.table, values), folder / "per_query.parquet")
    if per_user is not None:
        pq.write_table(per_user, folder / "per_user.parquet")
        without_erased(experiment, folder)
    (folder / "report.html").write_text(html, encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    return _summary(metrics, main)


def _compared(
    values: Values, slices: dict[str, np.ndarray], modalities: tuple[str, ...], settings: Evaluate, seed: int
) -> dict:
    """Served and fused against BM25 and the best single modality, in every slice."""
    single = best_of(values, modalities, f"ndcg@{settings.k}")
    rivals = ["bm25", "late"] if single is None else ["bm25", single, "late"]
    pairs = [(ours, rival) for ours in ("served", "fused") for rival in rivals]
    compared = compare(
        values,
        slices,
        [*pairs, ("served", "fused"), ("served", "hybrid"), ("hybrid", "fused")],
        settings.bootstrap,
        seed,
    )
    return {"single": single, "systems": compared[ALL]["systems"], "slices": compared}


def _missing(
    orders: dict[str, np.ndarray],
    grades: np.ndarray,
    mask: np.ndarray,
    modalities: tuple[str, ...],
    settings: Evaluate,
    seed: int,
) -> dict[str, dict]:
    """System → recall of relevant products by the modality they lack."""
    found = {}
    for system, order in orders.items():
        recalls = recall_without(order, grades, mask, modalities, settings.recall_k, settings.relevant)
        found[system] = {
            group: interval(recall, settings.bootstrap, seed=seed_of(seed, group)).as_dict()
            for group, recall in recalls.items()
        }
    return found


def _histograms(values: Values, variant: dict, metric: str) -> dict[str, np.ndarray]:
    rivals = ["bm25"] if variant["single"] is None else ["bm25", variant["single"]]
    served = values["served"][metric]
    return {f"{short('served')} − {short(rival)}": served - values[rival][metric] for rival in rivals}


def _summary(metrics: dict, main: str) -> dict:
    """What the manifest and the screen show."""
    found: dict = {"queries": metrics["run"]["queries"], "products": metrics["run"]["products"]}
    parts = dict(metrics["variants"])
    if metrics["recommendation"] is not None:
        parts["recommendation"] = metrics["recommendation"]
    if metrics["sessions"] is not None:
        parts["later sessions"] = metrics["sessions"]
    for name, part in parts.items():
        overall = part["slices"][ALL]
        found[name] = {
            main: {system: metrics_of[main]["mean"] for system, metrics_of in overall["systems"].items()},
            "differences": {f"{row['a']} - {row['b']}": row[main] for row in overall["differences"]},
        }
    return found


def _examples(
    queries: pa.Table,
    products: pa.Table,
    grades: np.ndarray,
    orders: dict[str, np.ndarray],
    media: Path,
    count: int,
    seed: int,
) -> list[Example]:
    """Queries drawn with the run's seed, with the first hits of BM25 and of the fused vectors."""
    judged = np.flatnonzero((grades > 0).any(axis=1))
    drawn = np.sort(np.random.default_rng(seed_of(seed, "examples")).permutation(judged)[:count])

    def picture(name: str | None) -> str | None:
        return thumbnail(media / name[:2] / name) if name else None

    def hit(query: int, row: int) -> Hit:
        product = products.slice(row, 1).to_pylist()[0]
        name = product["images"][0] if product["images"] else None
        return Hit(product["title"] or product["product_id"], float(grades[query, row]), picture(name))

    found = []
    for query in drawn.tolist():
        record = queries.slice(query, 1).to_pylist()[0]
        sides = {
            label(system): [hit(query, row) for row in orders[system][query, :EXAMPLE_HITS].tolist() if row >= 0]
            for system in ("bm25", "fused")
        }
        notes = " · ".join(part for part in (record["query_id"], record["group"]) if part)
        found.append(Example(record["text"] or "(asked with a picture)", sides, picture(record["image"]), notes))
    return found


def _per_query(queries: pa.Table, variants: dict[str, Values]) -> pa.Table:
    """One row for each variant, system and query."""
    ids = queries["query_id"].to_pylist()
    parts = []
    for variant, values in variants.items():
        for system, metrics in values.items():
            names = {"variant": [variant] * len(ids), "system": [system] * len(ids), "query_id": ids}
            parts.append(pa.table({**names, **metrics}))
    return pa.concat_tables(parts)
