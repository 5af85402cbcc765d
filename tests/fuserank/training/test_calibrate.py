"""Projections start from standardised encoder outputs, measured on training rows only."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.models.fused import FusedModel, Standardize
from fuserank.training.calibrate import SMALLEST, calibrate
from fuserank.training.data import RankingData, gather
from fuserank.training.splits import open_splits
from fuserank.training.start import new_model


@pytest.fixture
def model(experiment: config.Experiment, preprocess: Path) -> FusedModel:
    torch.manual_seed(0)
    return new_model(experiment, preprocess, None)


@pytest.fixture(scope="module")
def data(preprocess: Path) -> RankingData:
    return open_splits(preprocess, ("text", "image", "price"), 0).train


def statistics(model: FusedModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if k.endswith((".center", ".spread"))}


def test_by_hand(model: FusedModel, data: RankingData) -> None:
    model.train()
    calibrate(model, data, 0)
    assert model.training
    model.eval()
    sides = ((data.products, data.product_rows), (data.queries, data.query_rows))
    for modality, column in zip(data.modalities, data.columns, strict=True):
        found = []
        for table, rows in sides:
            have = rows[table.mask[rows, column]]
            if len(have):
                side = gather(table, have, (modality,), [column])
                with torch.no_grad():
                    found.append(model.hidden(modality, side.inputs[modality][1]).double().numpy())
        hidden, part = np.concatenate(found), model.projections[modality][0]
        assert isinstance(part, Standardize)
        spread = hidden.std(0, ddof=1)
        np.testing.assert_allclose(part.center.numpy(), hidden.mean(0), atol=1e-4, rtol=1e-3)
        expected = np.maximum(spread, SMALLEST * spread.mean())
        np.testing.assert_allclose(part.spread.numpy(), expected, atol=1e-4, rtol=1e-3)


def test_held_out_rows_have_no_say(model: FusedModel, preprocess: Path, data: RankingData) -> None:
    calibrate(model, data, 0)
    before = statistics(model)
    other = open_splits(preprocess, data.modalities, 0).train
    for table, held in (
        (other.queries, np.arange(18, 27)),
        (other.products, np.setdiff1d(np.arange(54), other.product_rows)),
    ):
        table.mask[held] = False  # type: ignore[index]
    calibrate(model, other, 0)
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


def test_rows_all_alike_stay_as_they_are(model: FusedModel, data: RankingData) -> None:
    model.encoders["price"].requires_grad_(False)
    for parameter in model.encoders["price"].parameters():
        parameter.zero_()
    calibrate(model, data, 0)
    part = model.projections["price"][0]
    assert isinstance(part, Standardize)
    assert (part.spread == 1).all()
