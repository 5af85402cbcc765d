"""The validation products and queries of a search, over which one trial's model answers as serving would.

Reads preprocess/, tune/cache/ and what the trial left in tune/trials/; writes tune/words/, a word index over the
validation products, which is built once and opened by every trial. Q queries · N validation products · M modalities.
"""

import json
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuserank.artifacts import stage_folder, write_json
from fuserank.config import Experiment
from fuserank.features.featurizer import Featurizer
from fuserank.feedback.behaviour import Behaviour
from fuserank.models.checkpoint import load_model, load_weights
from fuserank.models.fused import FusedModel
from fuserank.retrieval.catalogue import Catalogue
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.pipeline import SearchRequest
from fuserank.retrieval.vectors import Kind, VectorIndex
from fuserank.training.cached import SIDES, headless, open_cache
from fuserank.training.encode import encode_table
from fuserank.training.splits import Splits, open_splits
from fuserank.training.supervised import fused_table
from workloads.index import query_texts
from workloads.search_sessions import open_log
from workloads.trials import CACHE, WEIGHTS, trial_folder

WORDS, COMPLETE = "words", "complete.json"
CPU = torch.device("cpu")


class TrialShop:
    """Opened once in a process; models of different trials ask it one after the other."""

    def __init__(self, experiment: Experiment, folder: Path):
        """folder: of the stage."""
        self.experiment, self.folder = experiment, folder
        self.preprocess = stage_folder(experiment, "preprocess")
        self.cached = experiment.tune.training == "cached"
        self.rows = self.splits(()).validation.product_rows  # [N] of all products
        products = pq.read_table(self.preprocess / "products.parquet")
        self.ids: list[str] = products["product_id"].to_pylist()
        self.products = products.take(pa.array(self.rows))
        self.texts = query_texts(experiment)
        self.lexical = self._words()

    def splits(self, modalities: tuple[str, ...]) -> Splits:
        """Training and validation rows over what trials read: cached outputs, or features where they train encoders."""
        product, query = (open_cache(self.folder / CACHE, side) if self.cached else None for side in SIDES)
        return open_splits(self.preprocess, modalities, 0, product, query)

    def model(self, chosen: Experiment, number: int) -> FusedModel:
        """What trial `number` trained with the experiment `chosen`."""
        folder = trial_folder(self.folder, number)
        if not self.cached:
            return load_model(folder / "model").eval()
        model = headless(chosen, open_cache(self.folder / CACHE, "product"))
        load_weights(model, folder / WEIGHTS)
        return model.eval()

    def catalogue(self, model: FusedModel, splits: Splits, kind: Kind) -> Catalogue:
        """The N validation products as `index` would write them."""
        vectors, mask = encode_table(model, splits.train.products, self.rows, splits.columns, "product", CPU)
        vectors = vectors.half()
        fused = fused_table(model, (vectors.float(), mask), CPU).numpy()
        index = VectorIndex.build(fused, kind)
        return Catalogue(self.products, fused, vectors.numpy(), mask.numpy(), index, self.lexical)

    def requests(self, model: FusedModel, splits: Splits, candidates: int) -> list[SearchRequest]:
        """The Q validation queries."""
        validation = splits.validation
        rows = validation.query_rows
        vectors, mask = encode_table(model, validation.queries, rows, splits.columns, "query", CPU)
        with torch.inference_mode():
            fused, heads = (tensor.float().numpy() for tensor in model.search_vectors(vectors, mask))
        return [
            SearchRequest(self.texts[row] or None, fused[place], heads[place], candidates=candidates)
            for place, row in enumerate(rows.tolist())
        ]

    @cached_property
    def behaviour(self) -> Behaviour:
        """What `index` counts of the validation products before it fits the reranker."""
        log = open_log(self.preprocess, self.ids, self.experiment.index.later_sessions)
        counted = Behaviour.nothing(len(self.ids)) if log is None else log.behaviour(log.half)
        return counted.take(self.rows)

    def _words(self) -> LexicalIndex:
        folder, settings = self.folder / WORDS, {"typos": self.experiment.index.typos}
        complete = folder / COMPLETE
        if complete.is_file() and json.loads(complete.read_text(encoding="utf-8")) == settings:
            return LexicalIndex.open(folder)
        shutil.rmtree(folder, ignore_errors=True)
        featurizer = Featurizer.load(self.preprocess)
        texts = [featurizer.product_words(row) for row in self.products.to_pylist()]
        built = LexicalIndex.build(texts, folder, self.experiment.index.typos)
        write_json(complete, settings)
        return built


def judged_rows(splits: Splits) -> np.ndarray:
    """Grades float32 [Q, N] of the validation queries."""
    validation = splits.validation
    return validation.judgments.matrix(validation.query_rows, validation.product_rows)
