"""Training on cached encoder outputs: the encoders run once, then fusion, heads and recommender train in seconds.

`build_cache` writes `<folder>/<side>_<modality>.npy` (float16 [rows with the modality, H]) and `<side>_mask.npy`;
`train_on_cache` is what one trial of the search runs.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuserank import config
from fuserank.artifacts import stage_folder
from fuserank.features.table import FeatureTable
from fuserank.models.build import headless_model
from fuserank.models.checkpoint import save_tensors
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training.data import Inputs
from fuserank.training.encode import encode_chunks
from fuserank.training.group import ALONE, Group
from fuserank.training.loop import make_fit
from fuserank.training.splits import open_splits
from fuserank.training.start import new_model
from fuserank.training.supervised import Supervised

SIDES = {"product": "features", "query": "query_features.parquet"}


class CachedTable:
    """Encoder outputs in place of features; the same rows and mask (satisfies training.data.Inputs)."""

    def __init__(self, ids: list[str], mask: np.ndarray, hidden: Mapping[str, np.ndarray]):
        """
        Args:
            mask: bool [N, M] in MODALITIES order; hidden: modality → float16 [rows with it, H].
        """
        self.ids, self.mask, self.hidden = ids, mask, dict(hidden)
        self._slots = {m: np.cumsum(mask[:, MODALITIES.index(m)]) - 1 for m in hidden}

    def width(self, modality: str) -> int:
        """Width of that encoder's output; 1 where no row has the modality."""
        return self.hidden[modality].shape[1] if modality in self.hidden else 1

    def batch(self, rows: np.ndarray, modality: str) -> dict[str, Tensor]:
        return {"hidden": torch.from_numpy(self.hidden[modality][self._slots[modality][rows]].astype(np.float32))}


def encode_all(
    model: FusedModel,
    table: Inputs,
    mask: np.ndarray,
    device: torch.device,
    group: Group = ALONE,
    modalities: tuple[str, ...] | None = None,
) -> dict[str, np.ndarray]:
    """Encoder outputs by modality, float16 [rows with it, H]; the model is put in evaluation mode for it.

    Args:
        mask: bool [N, M] in MODALITIES order: what to encode, part of the table's own mask.
        group: the workers that share the encoding. modalities: which, all by default.
    """
    found = {}
    for modality in modalities or model.modalities:
        column = MODALITIES.index(modality)
        rows = np.flatnonzero(mask[:, column])
        chunks = encode_chunks(model, table, rows, (modality,), [column], device, group=group)
        parts = [hidden[modality].half().cpu().numpy() for _, _, hidden in chunks]
        if parts:
            found[modality] = np.concatenate(parts)
    return found


class Overlay:
    """Features, with cached encoder outputs in place of some modalities' (satisfies training.data.Inputs)."""

    def __init__(self, table: FeatureTable, cache: CachedTable, modalities: Collection[str]):
        self.table, self.cache, self.modalities = table, cache, frozenset(modalities)
        self.ids, self.mask = table.ids, table.mask

    def batch(self, rows: np.ndarray, modality: str) -> Mapping[str, Tensor]:
        return (self.cache if modality in self.modalities else self.table).batch(rows, modality)


class FrozenEncoders:
    """The encoders that training starts from, for the rows of a finished `preprocess`."""

    def __init__(self, experiment: config.Experiment, modalities: tuple[str, ...] | None = None):
        """
        Args:
            modalities: which; all of the model's by default.

        Raises:
            MissingStageError: preprocess or pretrain has not finished.
        """
        preprocess = stage_folder(experiment, "preprocess")
        pretrained = stage_folder(experiment, "pretrain") / "checkpoint"
        torch.manual_seed(experiment.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = new_model(experiment, preprocess, pretrained).to(self.device).eval()
        self.modalities = modalities or self.model.modalities
        self.tables = {side: FeatureTable.open(preprocess / file) for side, file in SIDES.items()}

    def encode(self, side: str, begin: int = 0, end: int | None = None) -> dict[str, np.ndarray]:
        """Outputs by modality of rows begin … end, float16 [rows with it, H]; no rows give [0, H]."""
        table = self.tables[side]
        rows = slice(begin, end)
        mask = np.zeros_like(table.mask)
        mask[rows] = table.mask[rows]
        found = encode_all(self.model, table, mask, self.device, modalities=self.modalities)
        none = {m: np.zeros((0, self.model.encoders[m].width), np.float16) for m in self.modalities}  # type: ignore[arg-type]
        return none | found


def write_index(preprocess: Path, folder: Path) -> dict[str, np.ndarray]:
    """Ids and mask of both sides into `folder`; returns the masks, bool [N, M], by side."""
    folder.mkdir(parents=True, exist_ok=True)
    masks = {}
    for side, file in SIDES.items():
        table = FeatureTable.open(preprocess / file)
        np.save(folder / f"{side}_ids.npy", np.array(table.ids))
        np.save(folder / f"{side}_mask.npy", table.mask)
        masks[side] = table.mask
    return masks


def build_cache(experiment: config.Experiment, folder: Path) -> None:
    """Run the pre-trained encoders of a finished `pretrain` once over all products and queries.

    Raises:
        MissingStageError: preprocess or pretrain has not finished.
    """
    encoders = FrozenEncoders(experiment)
    write_index(stage_folder(experiment, "preprocess"), folder)
    for side in SIDES:
        for modality, hidden in encoders.encode(side).items():
            if len(hidden):
                np.save(folder / f"{side}_{modality}.npy", hidden)


def open_cache(folder: Path, side: str) -> CachedTable:
    """One side of what `build_cache` wrote."""
    # mapped, not read: trials on one machine share the pages
    hidden = {m: np.load(file, mmap_mode="r") for m in MODALITIES if (file := folder / f"{side}_{m}.npy").is_file()}
    return CachedTable(np.load(folder / f"{side}_ids.npy").tolist(), np.load(folder / f"{side}_mask.npy"), hidden)


def open_overlay(preprocess: Path, folder: Path, side: str, modalities: Collection[str]) -> Overlay:
    """The features of a side with the cache of `folder` in place of these modalities."""
    return Overlay(FeatureTable.open(preprocess / SIDES[side]), open_cache(folder, side), modalities)


def headless(experiment: config.Experiment, products: CachedTable) -> FusedModel:
    """A new model for the outputs of that table; an attributes encoder is left out where no product has any."""
    known = [m for m in experiment.encoders.modalities if m != "attributes" or m in products.hidden]
    return headless_model(experiment.encoders, experiment.fusion, {m: products.width(m) for m in known})


def train_on_cache(
    cache_folder: str | Path,
    experiment_values: Mapping[str, Any],
    report: Callable[[int, float], Any],
    weights: Path | None = None,
) -> float:
    """Train everything but the encoders on the cache.

    Args:
        experiment_values: an Experiment as a dict (what a trial can carry between processes).
        report: called after each epoch with (epochs finished, validation nDCG@10 of the fused score); what it raises
            ends the training.
        weights: file for the weights of the best epoch, as safetensors.

    Returns:
        The best validation nDCG@10.
    """
    experiment, cache = config.validate(dict(experiment_values)), Path(cache_folder)
    # A trial is judged by search alone and has to be short: no recommender, no products beside the batch.
    experiment = config.update(experiment, {"train.bank": 0, "loss.weights.recommend": 0.0})
    preprocess = stage_folder(experiment, "preprocess")
    torch.manual_seed(experiment.seed)
    tune, train = experiment.tune, experiment.train
    products, queries = open_cache(cache, "product"), open_cache(cache, "query")
    model = headless(experiment, products)
    events = experiment.encoders.recommender.events if experiment.encoders.recommender else 0
    splits = open_splits(preprocess, model.modalities, events, products, queries, train.labels)
    job = Supervised(model, splits, experiment, torch.device("cpu"), cached=True)
    groups = [{"params": list(job.objective.parameters()), "lr": train.learning_rate}]
    fit = make_fit(
        job.objective, groups, tune.epochs * splits.train.steps(train.batch_size), train.warmup, train.weight_decay
    )
    best, kept = -1.0, {}
    for _ in range(tune.epochs):
        score = job.epoch(fit)["ndcg@10"]
        if score > best:
            best, kept = score, {name: value.clone() for name, value in model.state_dict().items()}
        report(fit.epoch, score)
    if weights is not None:
        weights.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(kept, weights)
    return best
