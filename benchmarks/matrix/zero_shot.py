"""A borrowed text encoder as it is: questions and products by the cosine of its bare outputs."""

import numpy as np
import pyarrow.parquet as pq

from fuserank.artifacts import stage_folder
from fuserank.config import Experiment
from fuserank.evaluation.metrics import rank_rows
from fuserank.evaluation.slices import query_slices
from fuserank.evaluation.systems import compare, measure
from fuserank.features.table import FeatureTable
from fuserank.training.cached import SIDES, FrozenEncoders
from fuserank.training.splits import open_splits
from workloads.ranking import evaluation_rows


def measure_zero_shot(experiment: Experiment) -> dict:
    """The same figures as a trained cell's, of the system `fused`: the cosine of the encoder's outputs."""
    preprocess = stage_folder(experiment, "preprocess")
    encoders = FrozenEncoders(experiment, ("text",))
    sides = {}
    for side, file in SIDES.items():
        found = encoders.encode(side)["text"].astype(np.float32)
        whole = np.zeros((len(FeatureTable.open(preprocess / file).ids), found.shape[1]), np.float32)
        whole[FeatureTable.open(preprocess / file).has("text")] = found
        sides[side] = whole / np.linalg.norm(whole, axis=1, keepdims=True).clip(1e-9)
    products = pq.read_table(preprocess / "products.parquet")
    rows = evaluation_rows(products, experiment.records.split.by == "product")
    queries = pq.read_table(preprocess / "queries.parquet")
    asked = np.flatnonzero(np.array(queries["split"].to_pylist(), object) == "evaluation")
    grades = open_splits(preprocess, ("text",), 0).train.judgments.matrix(asked, rows)
    orders = {"fused": rank_rows(sides["query"][asked] @ sides["product"][rows].T)}
    settings = experiment.evaluate
    values = measure(orders, grades, settings.k, settings.recall_k, settings.relevant)
    slices = query_slices(queries.take(asked))
    return {"variants": {"all text": compare(values, slices, [], settings.bootstrap, experiment.seed)}}
