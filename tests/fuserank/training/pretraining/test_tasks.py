"""Self-supervision on the tiny shop: which rows each task sees, what it hides, and losses that fall."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.features.featurizer import Featurizer
from fuserank.features.table import FeatureTable
from fuserank.models.encoders.audio import AudioEncoder
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training.loop import make_fit, run_epoch
from fuserank.training.noise import keys
from fuserank.training.pretraining import worker
from fuserank.training.pretraining.audio import AudioTask
from fuserank.training.pretraining.behaviour import BehaviourTask
from fuserank.training.pretraining.cross import CrossTask
from fuserank.training.pretraining.image import ImageTask
from fuserank.training.pretraining.spans import SpansTask, held, part_of
from fuserank.training.pretraining.task import Task, training_rows
from fuserank.training.pretraining.text import TextTask
from fuserank.training.start import new_model

CPU = torch.device("cpu")


@pytest.fixture
def model(experiment: config.Experiment, preprocess: Path) -> FusedModel:
    torch.manual_seed(0)
    return new_model(experiment, preprocess, None)


@pytest.fixture(scope="module")
def products(preprocess: Path) -> FeatureTable:
    return FeatureTable.open(preprocess / "features")


def losses(task: Task, epochs: int, size: int, rate: float) -> list[float]:
    parameters = list(task.module.parameters())
    fit = make_fit(task.module, [{"params": parameters, "lr": rate}], task.steps(size) * epochs, 0.1, 0.01)
    weights = {task.loss: 1.0}
    return [run_epoch(fit, task.batches(n, 0, size), weights, CPU, "float32")["loss"] for n in range(epochs)]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return all(same(one[key], two[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(same, one, two))
    return same(vars(one)["keys"], vars(two)["keys"]) if hasattr(one, "keys") else one == two


def repeats(task: Task, size: int) -> None:
    """The seed decides every batch, and an epoch goes on from any step."""
    whole = list(task.batches(0, 0, size))
    assert len(whole) == task.steps(size)
    assert len(whole) > 1
    for start in (0, 1, len(whole)):
        rest = list(task.batches(0, 0, size, start))
        assert len(rest) == len(whole) - start
        assert all(map(same, rest, whole[start:]))
    assert not same(whole[0], next(task.batches(1, 0, size)))
    assert not same(whole[0], next(task.batches(0, 1, size)))


def test_masked_language(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    settings = Featurizer.load(preprocess).settings
    task = worker.make_task("text", model, preprocess, products)
    assert isinstance(task, TextTask)
    frame = Featurizer.load(preprocess).text([""])[0]
    assert task.special.tolist() == sorted({settings.pad_id, *frame})  # [PAD], [CLS], [SEP]
    assert task.count == int(products.has("text").sum()) + len(
        training_rows(preprocess, "queries", FeatureTable.open(preprocess / "query_features.parquet"), "text")
    )
    repeats(task, 16)
    batches = list(task.batches(0, 0, 16))
    assert sum(len(ids) for ids, *_ in batches) == task.count
    for ids, seen, special, _ in batches:
        assert torch.equal(special, torch.isin(ids, task.special))
        assert special[seen == 0].all()
    before = model.encoders["text"].backbone.get_input_embeddings().weight.detach().clone()
    found = losses(task, 12, 16, 5e-3)
    assert sum(found[-3:]) / 3 < 0.8 * sum(found[:3]) / 3
    assert not torch.equal(model.encoders["text"].backbone.get_input_embeddings().weight, before)  # the encoder learns


def test_two_views(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    task = worker.make_task("image", model, preprocess, products)
    assert isinstance(task, ImageTask)
    assert task.count == int(products.has("image").sum())
    repeats(task, 16)
    assert all(pixels.shape == (16, 3, 16, 16) for pixels, *_ in task.batches(0, 0, 16))
    found = losses(task, 4, 16, 1e-3)
    assert found[-1] < 0.9 * found[0]


def sounds(count: int, missing: int) -> FeatureTable:
    """`count` rising or falling tones as spectrograms, every `missing`-th row without."""
    mask = np.zeros((count, len(MODALITIES)), bool)
    mask[:, MODALITIES.index("audio")] = np.arange(count) % missing != 0
    pitch = np.linspace(1, 6, 40)
    mel = [
        np.exp(-((np.arange(8)[:, None] - (pitch if row % 2 else pitch[::-1]) * (1 + row % 3 / 9)) ** 2))
        for row in range(int(mask.sum()))
    ]
    empty = np.zeros(0)
    offsets = np.zeros(count + 1, np.int64)
    return FeatureTable(
        [str(n) for n in range(count)],
        mask,
        empty,
        offsets,
        empty,
        np.array(mel, np.float16),
        np.full(count, np.nan),
        empty,
    )


def test_masked_spectrogram(preprocess: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    split = ["training" if n % 4 else "evaluation" for n in range(40)]
    pq.write_table(pa.table({"split": split}), tmp_path / "products.parquet")
    torch.manual_seed(0)
    encoder = AudioEncoder(8, 8)
    task = AudioTask(encoder, tmp_path, sounds(40, 5))
    assert task.count == sum(1 for n in range(40) if n % 4 and n % 5)
    repeats(task, 8)
    found = losses(task, 40, 8, 1e-2)
    assert sum(found[-3:]) / 3 < 0.6 * sum(found[:3]) / 3
    assert dict(task.parts) == {"audio": encoder}


def test_cross_modal(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    task = worker.make_task("cross", model, preprocess, products)
    assert isinstance(task, CrossTask)
    both = products.has("text") & products.has("image")
    assert task.count == int(both.sum())
    assert model.calibrated == {"text", "image", "price", "attributes"}
    spread = model.projections["text"][0].spread
    assert not torch.equal(spread, torch.ones_like(spread))  # outputs are measured before the projections learn
    repeats(task, 16)
    side, alike = next(task.batches(0, 0, 16))
    assert set(side.inputs) == {"text", "image"}
    assert alike.diagonal().all()
    assert set(task.parts) == {"text", "image", "text.projection", "image.projection"}
    found = losses(task, 12, 16, 3e-3)
    assert sum(found[-3:]) / 3 < 0.85 * sum(found[:3]) / 3


def test_spans(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    task = worker.make_task("spans", model, preprocess, products)
    assert isinstance(task, SpansTask)
    assert 10 < task.count <= int(products.has("text").sum())
    repeats(task, 8)
    side, parts, alike = next(task.batches(0, 0, 16))
    assert set(side.inputs) == {"text", "image"}
    assert set(parts.inputs) == {"text"}
    assert alike.diagonal().all()
    assert set(task.parts) == {"text", "image", "text.projection", "image.projection"}
    found = losses(task, 12, 16, 3e-3)
    assert sum(found[-3:]) / 3 < 0.85 * sum(found[:3]) / 3


def test_a_part_is_words_of_the_text_in_their_order(preprocess: Path, products: FeatureTable) -> None:
    rows = np.flatnonzero(products.has("text") & (np.diff(products.offsets) >= 4))
    whole = products.batch(rows, "text")
    ids, seen = whole["input_ids"], whole["attention_mask"]
    parts, parts_seen = part_of(ids, seen, keys(torch.from_numpy(rows), 1))
    again, _ = part_of(ids, seen, keys(torch.from_numpy(rows), 2))
    assert not torch.equal(parts[:, :4], again[:, :4])
    inside = held(parts, parts_seen, ids, seen)
    for place in range(len(rows)):
        text, part = ids[place][seen[place] > 0].tolist(), parts[place][parts_seen[place] > 0].tolist()
        assert part[0] == text[0]
        assert part[-1] == text[-1]
        assert 3 <= len(part) <= len(text)
        left = iter(text)
        assert all(token in left for token in part), "in their order"
        for other in range(len(rows)):
            texts = set(ids[other][seen[other] > 0].tolist())
            assert inside[place, other] == (set(part) <= texts)
    lengths = (parts_seen.sum(1) - 2).float() / (seen.sum(1) - 2).float()
    assert 0.15 < float(lengths.mean()) < 0.6


def test_same_texts_are_no_negatives(
    model: FusedModel, preprocess: Path, products: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = CrossTask(model, preprocess, products)
    rows = np.arange(54)
    monkeypatch.setattr(products, "tokens", products.tokens * 1001)  # numbers of a real vocabulary
    alike = task._alike(rows)
    known = products.has("text")
    texts = [products.batch([row], "text")["input_ids"].tolist() if known[row] else -int(row) for row in rows]
    for one in rows:
        for two in rows:
            assert alike[one, two] == (texts[one] == texts[two] and known[one])


def test_masked_items(model: FusedModel, preprocess: Path, products: FeatureTable) -> None:
    task = worker.make_task("behaviour", model, preprocess, products, events=4)
    assert isinstance(task, BehaviourTask)
    assert task.products.shape == (54, model.out_width)
    assert not task.products.requires_grad
    assert task.count == len(task.histories["rows"]) > 0
    assert task.histories["rows"].shape[1] == 4
    repeats(task, 8)
    found = losses(task, 30, 8, 3e-3)
    assert sum(found[-3:]) / 3 < 0.8 * sum(found[:3]) / 3
    assert dict(task.parts) == {"recommender": model.recommender}


def test_only_training_rows(preprocess: Path, products: FeatureTable) -> None:
    queries = FeatureTable.open(preprocess / "query_features.parquet")
    rows = training_rows(preprocess, "queries", queries, "text")
    assert rows.tolist() == [n for n in range(18) if n % 4 != 3]
    assert training_rows(preprocess, "products", products, "text").tolist() == [
        n for n in range(54) if n % 8 != 3
    ]  # this shop's split is by query, so every product counts


def test_nothing_to_learn_from(
    model: FusedModel, preprocess: Path, products: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("audio", "price", "unheard of"):
        assert worker.make_task(name, model, preprocess, products) is None
    featurizer = Featurizer.load(preprocess)
    settings = featurizer.settings
    unmasked = type(settings)(**{**settings.__dict__, "mask_id": None})
    monkeypatch.setattr(Featurizer, "load", lambda folder: type("F", (), {"settings": unmasked}))
    assert worker.make_task("text", model, preprocess, products) is None
    model.recommender = None
    assert worker.make_task("behaviour", model, preprocess, products, events=4) is None


def test_what_a_task_leaves_is_where_training_starts(
    model: FusedModel, experiment: config.Experiment, preprocess: Path, products: FeatureTable, tmp_path: Path
) -> None:
    from fuserank.models.checkpoint import save_weights
    from fuserank.training.calibrate import calibrate
    from fuserank.training.splits import open_splits

    tasks = [worker.make_task(name, model, preprocess, products, events=4) for name in ("cross", "behaviour")]
    for task in tasks:
        assert task is not None
        losses(task, 1, 16, 1e-3)
        for part, module in task.parts.items():
            save_weights(module, tmp_path / f"{part}.safetensors")
    torch.manual_seed(5)
    started = new_model(experiment, preprocess, tmp_path)
    calibrate(started, open_splits(preprocess, started.modalities, 0).train, 0)
    for part in ("encoders", "projections", "recommender"):
        old, new = getattr(model, part).state_dict(), getattr(started, part).state_dict()
        for name in (n for n in old if not n.startswith(("price", "attributes"))):
            assert torch.equal(old[name], new[name]), name
    other = new_model(config.update(experiment, {"fusion.kind": "concat"}), preprocess, tmp_path)
    assert other.recommender is not None
    assert model.recommender is not None
    assert other.recommender.item.weight.shape != model.recommender.item.weight.shape  # its ends are another fusion's
    assert torch.equal(other.recommender.gap.weight, model.recommender.gap.weight)
