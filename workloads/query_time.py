"""How long one query takes in what a trial would serve: measured alone, one query at a time, on one thread.

Reads preprocess/ and what the trial left in tune/; writes tune/latency.json, from which an interrupted measurement goes
on. A query's time runs from its features (of trials on cached outputs: from its encoder outputs, which are the same in
all of them) to its answer in the reranker's order: gate, heads and fusion, vector and word search over the validation
catalogue, one order out of both, candidates' features to the depth the trial has, reranker (one that reads features).
"""

import json
import time
from pathlib import Path

import numpy as np
import torch

from fuserank import config
from fuserank.artifacts import write_json
from fuserank.config import Experiment
from fuserank.models.candidates import feature_names
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker
from fuserank.retrieval.hybrid import Hybrid
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import placed, rerank, rerank_inputs
from fuserank.retrieval.vectors import chosen_kind
from fuserank.training.cached import headless, open_cache
from fuserank.training.data import gather
from fuserank.training.encode import autocast, hidden_of, place
from fuserank.training.splits import Splits
from tune.ledger import Trial
from tune.search import limit_threads
from workloads.reranking import configured
from workloads.trial_shop import CPU, TrialShop

FILE = "latency.json"
QUERIES, ROUNDS = 60, 3
APPROXIMATE = 4096  # rows that an approximate search is taken to read


def measure(experiment: Experiment, folder: Path, trials: list[Trial]) -> dict[int, float]:
    """Milliseconds a query by number of the complete trials: the median over queries of the best of ROUNDS.

    Nothing else must run on the machine; the caller has seen to it that no trial does.
    """
    file = folder / FILE
    found = {int(k): v for k, v in json.loads(file.read_text(encoding="utf-8")).items()} if file.is_file() else {}
    todo = [trial for trial in trials if trial.complete and trial.number not in found]
    if todo:
        before = torch.get_num_threads()
        limit_threads(1)
        shop = TrialShop(experiment, folder)
        for trial in todo:
            found[trial.number] = round(milliseconds(shop, config.update(experiment, trial.params), trial.number), 4)
            write_json(file, found)
        limit_threads(before)
    return found


def milliseconds(shop: TrialShop, chosen: Experiment, number: int) -> float:
    """Median over queries, for what trial `number` trained with the experiment `chosen`."""
    model = shop.model(chosen, number)
    splits = shop.splits(model.modalities)
    retriever = Retriever(shop.catalogue(model, splits, chosen.index.vectors), timed_hybrid(chosen))
    reranker = Reranker(len(feature_names(model.modalities))).eval()
    asked = splits.validation.query_rows[:QUERIES].tolist()
    times = [[_once(shop, model, retriever, reranker, splits, query, chosen) for query in asked] for _ in range(ROUNDS)]
    return float(np.median(np.min(times, axis=0))) * 1000


def timed_hybrid(chosen: Experiment) -> Hybrid:
    """How words count while time is taken; a learnt weight, which `index` has yet to choose, costs what any does."""
    return Hybrid("linear", chosen.index.hybrid_weight) if chosen.index.hybrid == "learnt" else configured(chosen)


def _once(
    shop: TrialShop,
    model: FusedModel,
    retriever: Retriever,
    reranker: Reranker,
    splits: Splits,
    query: int,
    chosen: Experiment,
) -> float:
    side = gather(splits.validation.queries, np.array([query]), model.modalities, splits.columns)
    begin = time.perf_counter()
    with torch.inference_mode():
        with autocast(CPU):
            vectors, mask = place(model, side, hidden_of(model, side), "query")
        fused, heads = (tensor[0].numpy() for tensor in model.search_vectors(vectors.float(), mask))
    request = SearchRequest(shop.texts[query] or None, fused, heads, candidates=chosen.index.candidates)
    found = retriever.search([request])[0]
    seen = rerank_inputs(found.first(chosen.index.rerank_depth), heads, retriever.catalogue, shop.behaviour, [])
    np.argsort(-placed(found.score, rerank(reranker, seen)), kind="stable")
    return time.perf_counter() - begin


def work(experiment: Experiment, cache: Path, catalogue: int) -> float:
    """Multiply-adds of one query in what an experiment would serve, in thousands: what the search minimises for
    `latency_ms`, because it is the same in every run and can be counted while other trials run.

    Args:
        catalogue: number of products.
    """
    model, index = headless(experiment, open_cache(cache, "product")), experiment.index
    width, modalities = experiment.fusion.width, len(model.modalities)
    query = sum(p.numel() for m in ("text", "image", "audio") if m in model.modalities for p in _linear(model, m))
    heads = modalities * width * width
    searched = model.out_width * (catalogue if chosen_kind(index.vectors, catalogue) == "flat" else APPROXIMATE)
    candidates = min(catalogue, 2 * index.candidates)
    scored = candidates * (model.out_width + modalities * width)  # each by its fused vector and by every modality
    reranker = sum(p.numel() for p in Reranker(len(feature_names(model.modalities))).parameters())
    reranked = min(candidates, index.rerank_depth) * reranker
    return (query + heads + searched + scored + reranked) / 1000


def _linear(model: FusedModel, modality: str) -> list[torch.nn.Parameter]:
    return list(model.projections[modality].parameters())
