"""Supervised training of encoders, fusion and recommender: what each Ray Train worker runs.

Reads preprocess/ (features, judgments, events) and pretrain/ (encoder weights); leaves a checkpoint per epoch with the
whole training state, and at the end the exported model.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuserank import config
from fuserank.models.adapt import Adaptation
from fuserank.models.fused import FusedModel
from fuserank.training.augment import MODALITIES as MODALITY_STREAM
from fuserank.training.augment import drop_tokens, drop_values, sounds, views
from fuserank.training.bank import Bank, fill, restore
from fuserank.training.calibrate import calibrate
from fuserank.training.data import Batch, Side
from fuserank.training.encode import encode_table
from fuserank.training.group import ALONE, Group
from fuserank.training.loop import Fit, make_fit, run_epoch
from fuserank.training.noise import keys, uniform
from fuserank.training.objective import Objective
from fuserank.training.splits import Splits

ORTHOGONAL = 0.1  # weight of AdaLoRA's regulariser, as in its paper


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
            loss,
            fusion.modality_dropout,
            list(self.adaptations.values()),
            group,
            experiment.train.accumulate,
            experiment.train.mined > 0,
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
        if "bank" in kept:
            self.bank = restore(data, kept["bank"], self.device)
        elif options.bank:
            draw, mined = (seed, epoch, 5), options.mined if epoch else 0.0  # the first epoch has nothing to mine with
            self.bank = fill(self.model, data, options.bank, self.device, draw, self.group, mined)
        else:
            self.bank = None
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
        """Random views of pictures and sounds, gaps in texts and attributes; outputs of frozen encoders stay."""
        share = self.experiment.train.token_dropout
        for side in (batch.products, batch.queries):
            if side is batch.products and "pixels" in (inputs := side.inputs.get("image", (None, {}))[1]):
                inputs["pixels"] = views(inputs["pixels"], side.own_keys("image"))  # type: ignore[arg-type]
            if "mel" in (inputs := side.inputs.get("audio", (None, {}))[1]):
                inputs["mel"] = sounds(inputs["mel"], side.own_keys("audio"))  # type: ignore[arg-type]
            if share > 0 and "attention_mask" in (inputs := side.inputs.get("text", (None, {}))[1]):
                inputs["attention_mask"] = drop_tokens(inputs["attention_mask"], share, side.own_keys("text"))  # type: ignore[arg-type]
            if share > 0 and "attribute_ids" in (inputs := side.inputs.get("attributes", (None, {}))[1]):
                ids = inputs["attribute_ids"]
                inputs["attribute_ids"] = drop_values(ids, share, side.own_keys("attributes"))  # type: ignore[arg-type]

    def _settle(self) -> None:
        """After a step: what the encoders said of its products goes into the bank, once."""
        if self.bank is not None and self._moving is not None:
            self.bank.update(*self._moving, self.objective.encoded)
        self._moving = None

    def remembered(self) -> dict[str, Any]:
        """What the epoch under way has made and cannot be made again: the catalogue's vectors and the bank."""
        return ({} if self.table is None else {"table": self.table}) | (
            {} if self.bank is None else {"bank": self.bank.state()}
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
