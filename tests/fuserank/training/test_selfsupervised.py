"""Self-supervision of text and pictures on the tiny shop: which rows, which tokens, and losses that fall."""

from pathlib import Path

import pytest
import torch

from fuserank import config
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.models.fused import FusedModel
from fuserank.training.loop import make_fit, run_epoch
from fuserank.training.selfsupervised import WEIGHTS, ImageTask, TextTask, make_task, training_rows
from fuserank.training.supervised import new_model

CPU = torch.device("cpu")


@pytest.fixture
def model(experiment: config.Experiment, preprocess: Path) -> FusedModel:
    torch.manual_seed(0)
    return new_model(experiment, preprocess, None)


@pytest.fixture(scope="module")
def products(preprocess: Path) -> FeatureTable:
    return FeatureTable.open(preprocess / "features")


def losses(task: TextTask | ImageTask, epochs: int, size: int, rate: float) -> list[float]:
    parameters = list(task.module.parameters())
    fit = make_fit(task.module, [{"params": parameters, "lr": rate}], task.steps(size) * epochs, 0.1, 0.01)
    return [run_epoch(fit, task.batches(n, 0, size), WEIGHTS, CPU, "float32")["loss"] for n in range(epochs)]


def test_masked_language(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    settings = Featurizer.load(preprocess).settings
    task = make_task("text", model, preprocess, products, settings)
    assert isinstance(task, TextTask)
    featurizer = Featurizer.load(preprocess)
    frame = featurizer.text([""])[0]
    assert task.special.tolist() == sorted({settings.pad_id, *frame})  # [PAD], [CLS], [SEP]
    assert task.count == int(products.has("text").sum()) + len(
        training_rows(preprocess, "queries", FeatureTable.open(preprocess / "query_features.parquet"), "text")
    )
    batches = list(task.batches(0, 0, 16))
    assert len(batches) == task.steps(16)
    assert sum(len(ids) for ids, *_ in batches) == task.count
    for ids, seen, special, _ in batches:
        assert torch.equal(special, torch.isin(ids, task.special))
        assert special[seen == 0].all()
    before = model.encoders["text"].backbone.get_input_embeddings().weight.detach().clone()
    found = losses(task, 12, 16, 5e-3)
    assert sum(found[-3:]) / 3 < 0.8 * sum(found[:3]) / 3
    assert not torch.equal(model.encoders["text"].backbone.get_input_embeddings().weight, before)  # the encoder learns


def test_two_views(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    task = make_task("image", model, preprocess, products, Featurizer.load(preprocess).settings)
    assert isinstance(task, ImageTask)
    assert task.count == int(products.has("image").sum())
    batches = list(task.batches(0, 0, 16))
    assert len(batches) == task.steps(16)
    assert all(one.shape == two.shape == (16, 3, 16, 16) and not torch.equal(one, two) for one, two in batches)
    again = list(task.batches(0, 0, 16))
    assert all(torch.equal(a, b) for x, y in zip(batches, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(batches[0][0], next(task.batches(1, 0, 16))[0])
    found = losses(task, 4, 16, 1e-3)
    assert found[-1] < 0.9 * found[0]


def test_only_training_rows(preprocess: Path, products: FeatureTable) -> None:
    queries = FeatureTable.open(preprocess / "query_features.parquet")
    rows = training_rows(preprocess, "queries", queries, "text")
    assert rows.tolist() == [n for n in range(18) if n % 4 != 3]
    assert training_rows(preprocess, "products", products, "text").tolist() == [
        n for n in range(54) if n % 8 != 3
    ]  # this shop's split is by query, so every product counts


def test_nothing_to_learn_from(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    settings = Featurizer.load(preprocess).settings
    assert make_task("audio", model, preprocess, products, settings) is None
    assert make_task("price", model, preprocess, products, settings) is None
    unmasked = type(settings)(**{**settings.__dict__, "mask_id": None})
    assert make_task("text", model, preprocess, products, unmasked) is None
