"""Supervised training of encoders, fusion and recommender: what each Ray Train worker runs.

Reads preprocess/ (features, judgments, events) and pretrain/ (encoder weights); leaves a checkpoint per epoch with the
whole training state, and at the end the exported model.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fuserank import config
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.feedback.sequences import training_histories
from fuserank.models.adapt import Adaptation, adapt
from fuserank.models.build import build_model
from fuserank.models.checkpoint import load_weights
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training.augment import MODALITIES as MODALITY_STREAM
from fuserank.training.augment import drop_tokens, views
from fuserank.training.bank import Bank
from fuserank.training.calibrate import calibrate
from fuserank.training.data import Batch, Inputs, Judgments, RankingData, Side, judgments_of
from fuserank.training.encode import encode_table
from fuserank.training.group import ALONE, Group
from fuserank.training.loop import Fit, make_fit, run_epoch
from fuserank.training.noise import keys, uniform
from fuserank.training.objective import Objective
from fuserank.training.validate import Validation

ORTHOGONAL = 0.1  # weight of AdaLoRA's regulariser, as in its paper


@dataclass
class Splits:
    """Training and validation data over the same tables."""

    train: RankingData
    validation: Validation
    columns: list[int]


def open_splits(
    preprocess: Path,
    modalities: tuple[str, ...],
    events: int,
    products: Inputs | None = None,
    queries: Inputs | None = None,
) -> Splits:
    """The splits of a finished `preprocess`.

    Args:
        modalities: the model's. events: history length for the recommender, 0 for none.
        products, queries: cached inputs in place of the features (the same rows).
    """
    products = products if products is not None else FeatureTable.open(preprocess / "features")
    queries = queries if queries is not None else FeatureTable.open(preprocess / "query_features.parquet")
    product_split = _column(preprocess / "products.parquet", "split", len(products.ids))
    query_split = _column(preprocess / "queries.parquet", "split", len(queries.ids))
    judgments = judgments_of(pq.read_table(preprocess / "judgments.parquet"), queries.ids, products.ids)
    columns = [MODALITIES.index(m) for m in modalities]
    everything = np.arange(len(products.ids))

    def rows(split: str) -> np.ndarray:  # where the split is by query, every product is in the catalogue of each split
        by_product = any(value is not None for value in product_split)
        return np.flatnonzero(product_split == split) if by_product else everything

    file = preprocess / "events.parquet"
    histories = training_histories(pq.read_table(file), products.ids, events) if events and file.is_file() else None
    asked = {name: np.flatnonzero(query_split == name) for name in ("training", "validation")}
    train = RankingData(
        products, queries, judgments, rows("training"), asked["training"], modalities, columns, histories
    )
    validation = Validation(products, queries, judgments, rows("validation"), asked["validation"], columns)
    return Splits(train, validation, columns)


def _column(file: Path, name: str, count: int) -> np.ndarray:
    if not file.is_file():
        return np.full(count, None, object)
    return np.array(pq.read_table(file, columns=[name])[name].to_pylist(), object)


def new_model(experiment: config.Experiment, preprocess: Path, pretrained: Path | None) -> FusedModel:
    """The config's model, with what `pretrained` holds of it: encoders (`<modality>.safetensors`), projections
    (`<modality>.projection.safetensors`) and the recommender, of which only what fits is taken: its ends belong to one
    kind of fusion."""
    settings = Featurizer.load(preprocess).settings
    model = build_model(
        experiment.encoders,
        experiment.fusion,
        settings.vocabulary,
        settings.text_tokens,
        settings.mels,
        list(settings.price_edges),
    )
    if pretrained is None:
        return model
    for modality in model.modalities:
        if (file := pretrained / f"{modality}.safetensors").is_file():
            load_weights(model.encoders[modality], file)
        if (file := pretrained / f"{modality}.projection.safetensors").is_file():
            load_weights(model.projections[modality], file)
            model.calibrated.add(modality)
    if model.recommender is not None and (file := pretrained / "recommender.safetensors").is_file():
        load_weights(model.recommender, file, fitting=True)
    return model


def calibrate_fresh(model: FusedModel, products: Inputs, rows: np.ndarray, seed: int) -> None:
    """`calibrate` from products alone, where there may be no query yet; the projections are not measured again."""
    columns = [MODALITIES.index(m) for m in model.modalities]
    none = np.zeros(0, np.int64)
    nobody = Judgments(none, none, none.astype(np.float64), 0, len(products.ids))
    calibrate(model, RankingData(products, products, nobody, rows, none, model.modalities, columns), seed)
    model.calibrated |= set(model.modalities)


def adapt_encoders(model: FusedModel, encoders: config.Encoders, steps: int) -> dict[str, Adaptation]:
    """Make each encoder trainable as its `adaptation` says; bottlenecks become part of the model's description.

    Args:
        steps: of the whole training.
    """
    found = {}
    for modality in model.modalities:
        settings = getattr(encoders, modality)
        kind, options = getattr(settings, "adaptation", "full"), getattr(settings, "adapter", config.Adapter())
        found[modality] = adapt(model.encoders[modality], kind, options, steps)
        if found[modality].description is not None:
            model.description["encoders"][modality]["adapter"] = found[modality].description
    return found


def new_fit(objective: Objective, train: config.Train, steps: int) -> Fit:
    """Optimiser with the encoders' own learning rate."""
    encoders = [p for p in objective.model.encoders.parameters() if p.requires_grad]
    known = {id(p) for p in objective.model.encoders.parameters()}
    rest = [p for p in objective.parameters() if id(p) not in known]
    groups = [{"params": rest, "lr": train.learning_rate}]
    if encoders:
        groups.append({"params": encoders, "lr": train.encoder_learning_rate})
    scaler = torch.GradScaler(next(objective.parameters()).device.type) if train.precision == "float16" else None
    return make_fit(objective, groups, steps, train.warmup, train.weight_decay, train.schedule, scaler)


@torch.inference_mode()
def fused_table(model: FusedModel, catalogue: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
    """[N, E] fused vectors of the whole catalogue."""
    vectors, mask = catalogue
    training = model.training
    model.eval()
    table = torch.cat(
        [
            model.product_vectors(v.to(device), m.to(device)).float()
            for v, m in zip(vectors.split(4096), mask.split(4096), strict=True)
        ]
    )
    model.train(training)
    return table


class Supervised:
    """Epochs of supervised training; the same whether inputs are features or cached encoder outputs."""

    def __init__(
        self,
        model: FusedModel,
        splits: Splits,
        experiment: config.Experiment,
        device: torch.device,
        cached: bool = False,
        adaptations: Mapping[str, Adaptation] | None = None,
        group: Group = ALONE,
    ):
        loss, fusion = experiment.loss, experiment.fusion
        self.experiment, self.splits, self.device, self.cached = experiment, splits, device, cached
        self.weights: dict[str, float] = loss.weights.model_dump()
        self.adaptations = dict(adaptations or {})
        if any(a.kind == "adalora" for a in self.adaptations.values()):
            self.weights["orthogonal"] = ORTHOGONAL
        self.model = model.to(device)
        calibrate(self.model, splits.train, experiment.seed)
        self.group = group
        self.objective = Objective(
            model,
            self.weights,
            loss.temperature,
            fusion.modality_dropout,
            list(self.adaptations.values()),
            group,
            experiment.train.accumulate,
        ).to(device)
        self.catalogue: tuple[Tensor, Tensor] | None = None
        self.bank: Bank | None = None
        self.table: Tensor | None = None
        self._moving: tuple[np.ndarray, Side] | None = None  # the step's products, until the bank has them
        self.kept: dict[str, Any] = {}  # what an interrupted epoch had made, for its first batch

    def refresh(self) -> Tensor:
        """Fused vectors of the whole catalogue for the recommender; an empty table where there is none to train."""
        train = self.splits.train
        if train.histories is None or self.model.recommender is None or self.weights["recommend"] == 0:
            return torch.zeros(0, self.model.out_width, device=self.device)
        if self.catalogue is None:
            rows = np.arange(len(train.products.ids))
            self.catalogue = encode_table(
                self.model, train.products, rows, self.splits.columns, "product", self.device, group=self.group
            )
        return fused_table(self.model, self.catalogue, self.device).clone()

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Forward arguments of one epoch, from step `start` on (what `remembered` held must be in `kept` then)."""
        options, seed = self.experiment.train, self.experiment.seed
        data, kept = self.splits.train, self.kept
        self.table = table = kept["table"].to(self.device) if "table" in kept else self.refresh()
        self.bank = (
            Bank(self.model, data, options.bank, self.device, (seed, epoch, 5), self.group, kept.get("bank"))
            if options.bank
            else None
        )
        self.kept = {}
        for batch in data.epoch(
            epoch, seed, options.batch_size, options.positives, options.queries, options.sequences, self.group, start
        ):
            if not self.cached:
                self._augment(batch)
            rows, noise = batch.rows.numpy(), [batch.products.keys]
            if self.bank is not None:
                others, batch.bank = self.bank.beside(rows)
                grades = torch.from_numpy(data.judgments.matrix(batch.query_rows, others))
                batch.grades = torch.cat([batch.grades, grades], 1)
                noise.append(keys(torch.from_numpy(others), seed, epoch, int(rows[0]), 3))
            dropped = uniform(torch.cat(noise), MODALITY_STREAM, len(data.modalities))  # type: ignore[arg-type]
            self._moving = (rows, batch.to(self.device).products)
            yield batch, table, dropped.to(self.device)
            self._settle()

    def _augment(self, batch: Batch) -> None:
        """Random views of pictures and gaps in texts."""
        share = self.experiment.train.token_dropout
        for side in (batch.products, batch.queries):
            if "image" in side.inputs and side is batch.products:
                inputs = side.inputs["image"][1]
                inputs["pixels"] = views(inputs["pixels"], side.own_keys("image"))  # type: ignore[arg-type]
            if "text" in side.inputs and share > 0:
                inputs = side.inputs["text"][1]
                inputs["attention_mask"] = drop_tokens(inputs["attention_mask"], share, side.own_keys("text"))  # type: ignore[arg-type]

    def _settle(self) -> None:
        """After a step: what the encoders said of its products goes into the bank, once."""
        if self.bank is not None and self._moving is not None:
            self.bank.update(*self._moving, self.objective.encoded)
        self._moving = None

    def remembered(self) -> dict[str, Any]:
        """What the epoch under way has made and cannot be made again: the catalogue's vectors and the bank."""
        return ({} if self.table is None else {"table": self.table}) | (
            {} if self.bank is None else {"bank": dict(self.bank.hidden)}
        )

    def epoch(self, fit: Fit, after_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Train the rest of an epoch and validate; returns mean losses and validation metrics (`ndcg@10` …)."""
        options = self.experiment.train

        def stepped() -> None:
            self._settle()
            for adaptation in self.adaptations.values():
                adaptation.after_step(fit.schedule.last_epoch)
            if after_step is not None:
                after_step()

        batches = self.batches(fit.epoch, fit.step)
        metrics = run_epoch(
            fit, batches, self.weights, self.device, options.precision, options.clip, after_step=stepped
        )
        self.catalogue = None
        return metrics | self.validate()

    def validate(self) -> dict[str, float]:
        """nDCG@10 of the fused score (`ndcg@10`) and of each modality alone, on the validation split."""
        self.refresh()  # encodes the catalogue once, for this and for the next epoch
        return self.splits.validation.score(self.model, self.device, self.catalogue, self.group)


def describe(model: FusedModel) -> dict[str, Any]:
    """Trained and total parameters, by part."""
    parts = {f"encoders.{m}": e for m, e in model.encoders.items()} | {"fusion": model.fusion}
    if model.recommender is not None:
        parts["recommender"] = model.recommender
    counts = {
        name: {
            "trained": sum(p.numel() for p in part.parameters() if p.requires_grad),
            "total": sum(p.numel() for p in part.parameters()),
        }
        for name, part in parts.items()
    }
    counts["all"] = {
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "total": sum(p.numel() for p in model.parameters()),
    }
    return counts
