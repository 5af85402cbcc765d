"""How long one query takes in what a trial would serve: measured alone, one query at a time, on one thread.

Reads preprocess/ and what the trial left in tune/; writes tune/latency.json, from which an interrupted measurement goes
on, and a scratch word index. A query's time runs from its features (of trials on cached outputs: from its encoder
outputs, which are the same in all of them) to its answer in the reranker's order: gate, heads and fusion, vector and
word search over the validation catalogue, candidates' features, reranker.
"""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuserank import config
from fuserank.artifacts import stage_folder, write_json
from fuserank.config import Experiment
from fuserank.features.featurizer import Featurizer
from fuserank.models.candidates import candidate_features, feature_names
from fuserank.models.checkpoint import load_model, load_weights
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.vectors import VectorIndex, chosen_kind
from fuserank.training.cached import SIDES, headless, open_cache
from fuserank.training.data import gather
from fuserank.training.encode import autocast, encode_table, hidden_of, place
from fuserank.training.splits import Splits, open_splits
from fuserank.training.supervised import fused_table
from tune.ledger import Trial
from tune.search import limit_threads
from workloads.index import query_texts
from workloads.trials import CACHE, WEIGHTS, trial_folder

FILE = "latency.json"
QUERIES, ROUNDS, WARM = 60, 3, 5
CPU = torch.device("cpu")


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
        shop = Shop(experiment, folder)
        for trial in todo:
            found[trial.number] = round(shop.milliseconds(trial), 4)
            write_json(file, found)
        limit_threads(before)
    return found


class Shop:
    """The validation catalogue and queries that every trial is timed on."""

    def __init__(self, experiment: Experiment, folder: Path):
        preprocess = stage_folder(experiment, "preprocess")
        self.experiment, self.folder, self.preprocess = experiment, folder, preprocess
        featurizer, products = Featurizer.load(preprocess), pq.read_table(preprocess / "products.parquet")
        self.words = query_texts(experiment)
        self.cached = experiment.tune.training == "cached"
        rows = self._splits(("text",)).validation.product_rows
        self.products = products.take(pa.array(rows))
        texts = [featurizer.product_text(row) for row in self.products.to_pylist()]
        scratch = folder / "words"
        scratch.mkdir(exist_ok=True)
        self.lexical = LexicalIndex.build(texts, scratch, experiment.index.typos)

    def milliseconds(self, trial: Trial) -> float:
        """Median over queries."""
        chosen = config.update(self.experiment, trial.params)
        model = self._model(chosen, trial.number).eval()
        splits = self._splits(model.modalities)
        rows = splits.validation.product_rows
        vectors, mask = encode_table(model, splits.train.products, rows, splits.columns, "product", CPU)
        fused = fused_table(model, (vectors, mask), CPU).numpy()
        kept = vectors.half().numpy()
        index = VectorIndex.build(fused, chosen.index.vectors)
        retriever = Retriever(Catalogue(self.products, fused, kept, mask.numpy(), index, self.lexical))
        reranker = Reranker(len(feature_names(model.modalities))).eval()
        asked = splits.validation.query_rows[:QUERIES]
        times = [[self._once(model, retriever, reranker, splits, int(q), chosen) for q in asked] for _ in range(ROUNDS)]
        return float(np.median(np.min(times, axis=0))) * 1000

    def _once(
        self,
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
            fused, heads = model.search_vectors(vectors.float(), mask)
            request = SearchRequest(
                self.words[query], fused[0].numpy(), heads[0].numpy(), candidates=chosen.index.candidates
            )
            found = retriever.search([request])[0]
            found = found.first(chosen.index.rerank_depth)
            features = candidate_features(found.score, found.lexical, found.modalities, found.mask)
            reranker(torch.from_numpy(features)[None])[0].argsort(descending=True)
        return time.perf_counter() - begin

    def _model(self, chosen: Experiment, number: int) -> FusedModel:
        folder = trial_folder(self.folder, number)
        if not self.cached:
            return load_model(folder / "model")
        model = headless(chosen, open_cache(self.folder / CACHE, "product"))
        load_weights(model, folder / WEIGHTS)
        return model

    def _splits(self, modalities: tuple[str, ...]) -> Splits:
        product, query = (open_cache(self.folder / CACHE, side) if self.cached else None for side in SIDES)
        return open_splits(self.preprocess, modalities, 0, product, query)


def work(experiment: Experiment, cache: Path, catalogue: int) -> float:
    """Multiply-adds of one query in what an experiment would serve, in thousands: what the search minimises for
    `latency_ms`, because it is the same in every run and can be counted while other trials run.

    Args:
        catalogue: number of products.
    """
    model = headless(experiment, open_cache(cache, "product"))
    width, modalities = experiment.fusion.width, len(model.modalities)
    query = sum(p.numel() for m in ("text", "image", "audio") if m in model.modalities for p in _linear(model, m))
    heads = modalities * width * width
    exact = chosen_kind(experiment.index.vectors, catalogue) == "flat"
    searched = model.out_width * (catalogue if exact else 4096)
    reranked = min(catalogue, 2 * experiment.index.candidates, experiment.index.rerank_depth) * (
        modalities * width + 16 * (3 + 2 * modalities)
    )
    return (query + heads + searched + reranked) / 1000


def _linear(model: FusedModel, modality: str) -> list[torch.nn.Parameter]:
    return list(model.projections[modality].parameters())
