"""The last part of training: encoders stand still, and all that lies above them learns from a large part of the
catalogue at every step, which their cached outputs make cheap.

Fine grades are what this is for: of a thousand products a query has a handful of best answers, and a batch small enough
to be encoded at every step hardly ever holds one.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fuserank import config
from fuserank.models.fused import FusedModel
from fuserank.training.cached import CachedTable, encode_all
from fuserank.training.data import Inputs, RankingData
from fuserank.training.group import ALONE
from fuserank.training.loop import make_fit, run_epoch
from fuserank.training.splits import Splits
from fuserank.training.supervised import Supervised
from fuserank.training.validate import Validation

LOOKS = 5  # validations on the way
LARGEST = 100_000  # products whose outputs are held in memory; of more, a random choice


def refine(job: Supervised, log: Callable[[int, int, dict[str, float]], Any]) -> dict[str, float]:
    """Train everything but the encoders for `train.refine.steps` steps.

    Leaves in the model the best weights by validation nDCG@10, those it came with included (`keep: last`: the last).

    Args:
        job: the finished training; its model changes. Every worker of its group calls this.
        log: called with (steps done, steps, metrics) at every validation.

    Returns:
        The metrics of what was kept.
    """
    options, train = job.experiment.train.refine, job.experiment.train
    sets = {"batch_size": options.products, "queries": options.queries, "bank": 0, "positives": 0.0}
    heads = copy.copy(job)
    heads.experiment = config.update(job.experiment, {f"train.{name}": value for name, value in sets.items()})
    heads.splits, heads.cached, heads.catalogue = _cached(job), True, None
    heads.group = ALONE  # every worker does all of this, alike: it is short
    heads.weights = job.weights | {"align": 0.0}  # it has brought the modalities together, and costs most by far here
    heads.objective = copy.copy(job.objective)
    heads.objective.weights, heads.objective.group = heads.weights, heads.group
    inside = {id(p) for p in job.model.encoders.parameters()}
    moved = [p for p in job.objective.parameters() if id(p) not in inside]
    rounds = math.ceil(options.steps / heads.splits.train.steps(options.products))  # over the training products
    steps = rounds * heads.splits.train.steps(options.products)
    fit = make_fit(heads.objective, [{"params": moved, "lr": options.learning_rate}], steps, 0.1, train.weight_decay)
    best, weights, losses = heads.validate(), _above(job.model), {}
    every = math.ceil(rounds / LOOKS)
    while fit.epoch < rounds:
        for _ in range(min(every, rounds - fit.epoch)):
            losses = run_epoch(fit, heads.batches(fit.epoch), heads.weights, job.device, train.precision, train.clip)
        heads.catalogue = None  # the projections have moved
        metrics = losses | heads.validate()
        log(fit.epoch * steps // rounds, steps, metrics)
        if train.keep == "last" or metrics.get("ndcg@10", 0.0) >= best.get("ndcg@10", 0.0):
            best, weights = metrics, _above(job.model)
    job.model.load_state_dict(weights, strict=False)
    return best


def _above(model: FusedModel) -> dict[str, torch.Tensor]:
    """A copy of all weights but the encoders'."""
    return {k: v.detach().clone() for k, v in model.state_dict().items() if not k.startswith("encoders.")}


def _cached(job: Supervised) -> Splits:
    """The job's splits over encoder outputs."""
    train, validation = job.splits.train, job.splits.validation
    rows, model = train.product_rows, job.model
    if len(rows) > LARGEST:
        rows = np.sort(np.random.default_rng((job.experiment.seed, 6)).choice(rows, LARGEST, replace=False))
    wanted = (
        np.union1d(rows, validation.product_rows) if train.histories is None else np.arange(len(train.products.ids))
    )
    products = _outputs(job, train.products, wanted)
    queries = _outputs(job, train.queries, np.union1d(train.query_rows, validation.query_rows))
    return Splits(
        RankingData(
            products,
            queries,
            train.judgments,
            rows,
            train.query_rows,
            model.modalities,
            train.columns,
            train.histories,
        ),
        Validation(
            products, queries, train.judgments, validation.product_rows, validation.query_rows, validation.columns
        ),
        job.splits.columns,
    )


def _outputs(job: Supervised, table: Inputs, rows: np.ndarray) -> CachedTable:
    mask = np.zeros_like(table.mask)
    mask[rows] = table.mask[rows]
    return CachedTable(table.ids, mask, encode_all(job.model, table, mask, job.device, job.group))
