"""Supervised training on a tiny shop: it learns, it freezes, it resumes exactly, and a cache trains the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fuserank import config
from fuserank.losses.weighted import weighted_sum
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.price import PriceEncoder
from fuserank.models.fused import FusedModel
from fuserank.training.cached import SIDES, build_cache, open_cache, open_overlay, train_on_cache
from fuserank.training.data import Judgments, Side
from fuserank.training.encode import encode_table, hidden_of
from fuserank.training.loop import Fit
from fuserank.training.objective import Objective
from fuserank.training.splits import open_splits
from fuserank.training.start import adapt_encoders, describe, new_model
from fuserank.training.state import load_state, save_state
from fuserank.training.supervised import Supervised, new_fit
from fuserank.training.validate import Validation

CPU = torch.device("cpu")


def begin(experiment: config.Experiment, preprocess: Path, seed: int = 0) -> tuple[Supervised, Fit]:
    torch.manual_seed(seed)
    model = new_model(experiment, preprocess, None)
    recommender = experiment.encoders.recommender
    splits = open_splits(preprocess, model.modalities, recommender.events if recommender else 0)
    steps = experiment.train.epochs * splits.train.steps(experiment.train.batch_size)
    adaptations = adapt_encoders(model, experiment.encoders, steps)
    job = Supervised(model, splits, experiment, CPU, adaptations=adaptations)
    return job, new_fit(job.objective, experiment.train, steps)


@pytest.fixture(scope="module")
def straight(experiment: config.Experiment, preprocess: Path) -> tuple[Supervised, list[dict[str, float]]]:
    job, fit = begin(experiment, preprocess)
    return job, [job.epoch(fit) for _ in range(4)]


def test_losses_fall(straight: tuple[Supervised, list[dict[str, float]]]) -> None:
    _, history = straight
    assert set(history[0]) >= {
        "loss",
        "text",
        "image",
        "price",
        "fused",
        "align",
        "recommend",
        "ndcg@10",
        "text_ndcg@10",
    }
    for name in ("loss", "fused", "text", "recommend"):
        assert history[-1][name] < history[0][name]


def test_ranking_rises(experiment: config.Experiment, preprocess: Path) -> None:
    sets = {
        "encoders.image": None,
        "encoders.recommender": None,
        "train.encoder_learning_rate": 5e-3,
        "train.epochs": 12,
    }
    job, fit = begin(config.update(experiment, sets), preprocess)
    before = job.validate()["ndcg@10"]
    scores = [job.epoch(fit)["ndcg@10"] for _ in range(12)]
    assert scores[-1] > max(0.65, before + 0.1)  # two of nine queries are a picture only, which this model cannot see


def test_resume_is_exact(
    straight: tuple[Supervised, list[dict[str, float]]], experiment: config.Experiment, preprocess: Path, tmp_path: Path
) -> None:
    job, history = straight
    first, fit = begin(experiment, preprocess)
    for _ in range(2):
        first.epoch(fit)
    save_state(fit, tmp_path, {"best": {"score": 0.5, "weights": {"a": torch.ones(2)}}})
    second, resumed = begin(experiment, preprocess, seed=99)  # another start, all of it overwritten
    torch.rand(1000)
    extra = load_state(resumed, tmp_path)
    assert resumed.epoch == 2
    assert extra["best"]["score"] == 0.5
    assert [second.epoch(resumed) for _ in range(2)] == history[2:]
    expected = job.objective.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.objective.state_dict().items())


def test_another_seed_is_another_run(experiment: config.Experiment, preprocess: Path) -> None:
    batches = [begin(config.update(experiment, {"seed": s}), preprocess)[0].batches(0) for s in (0, 0, 1)]
    first, same, other = (next(b)[0] for b in batches)
    assert torch.equal(first.rows, same.rows)
    assert torch.equal(first.products.inputs["image"][1]["pixels"], same.products.inputs["image"][1]["pixels"])
    assert not torch.equal(first.rows, other.rows)


def test_what_is_frozen_does_not_move(experiment: config.Experiment, preprocess: Path) -> None:
    sets = {"encoders.text.adaptation": "frozen", "encoders.image.adaptation": "frozen"}
    job, fit = begin(config.update(experiment, sets), preprocess)
    before = {m: {k: v.clone() for k, v in e.state_dict().items()} for m, e in job.model.encoders.items()}
    outside = job.model.projections["text"][1].weight.detach().clone()
    job.epoch(fit)
    job.model.train()
    for modality in ("text", "image"):
        state = job.model.encoders[modality].state_dict()  # running statistics too
        assert all(torch.equal(value, before[modality][name]) for name, value in state.items())
        assert not any(module.training for module in job.model.encoders[modality].modules())
    assert job.model.encoders["price"].training
    assert any(not torch.equal(v, before["price"][k]) for k, v in job.model.encoders["price"].state_dict().items())
    assert not torch.equal(job.model.projections["text"][1].weight, outside)
    trained = describe(job.model)
    assert trained["encoders.text"]["trained"] == trained["encoders.image"]["trained"] == 0
    assert 0 < trained["all"]["trained"] < trained["all"]["total"]


def test_learning_rates_by_part(experiment: config.Experiment, preprocess: Path) -> None:
    job, fit = begin(config.update(experiment, {"encoders.text.adaptation": "frozen"}), preprocess)
    rest, encoders = fit.optimizer.param_groups
    assert (rest["initial_lr"], encoders["initial_lr"]) == (5e-3, 5e-4)
    mine = {id(p) for p in encoders["params"]}
    assert mine == {id(p) for m in ("image", "price", "attributes") for p in job.model.encoders[m].parameters()}
    text = {id(p) for p in job.model.encoders["text"].parameters()}
    every = {id(p) for p in job.objective.parameters()}
    assert mine | {id(p) for p in rest["params"]} == every - text


def test_modality_dropout_never_hides_the_last(experiment: config.Experiment, preprocess: Path) -> None:
    job, _ = begin(experiment, preprocess)
    batch, table, dropped = next(job.batches(0))
    seen: list[Tensor] = []
    original = job.model.product_vectors

    def spy(vectors: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask)
        return original(vectors, mask)

    job.model.product_vectors = spy  # type: ignore[method-assign]
    job.objective.modality_dropout = 0.5
    for draw in (torch.zeros_like(dropped), dropped):
        seen.clear()
        job.objective(batch, table, draw)
        assert batch.bank is not None
        mask, shown = torch.cat([batch.products.mask, batch.bank.mask]), seen[0]
        assert torch.equal(shown.any(1), mask.any(1))
        assert not (shown & ~mask).any()
        kept = mask & (draw >= 0.5)
        expected = torch.where((kept.any(1) | ~mask.any(1))[:, None], kept, mask)
        alone = mask.sum(1) == 1
        assert torch.equal(shown[~alone], expected[~alone])
        assert torch.equal(shown[alone], mask[alone])


def test_a_batch_without_judgments_trains_nothing_and_does_not_fail(
    experiment: config.Experiment, preprocess: Path
) -> None:
    sets = {"loss.weights.align": 0, "train.sequences": 0, "encoders.recommender": None}
    job, fit = begin(config.update(experiment, sets), preprocess)
    data = job.splits.train
    data.judgments = Judgments(
        *(np.zeros(0, np.int64),) * 2, np.zeros(0), len(data.queries.ids), len(data.products.ids)
    )
    metrics = job.epoch(fit)
    assert metrics["loss"] == 0


def test_validation_without_relevant_products(experiment: config.Experiment, preprocess: Path) -> None:
    job, _ = begin(experiment, preprocess)
    right = job.splits.validation
    assert 0 <= right.score(job.model, CPU)["ndcg@10"] <= 1
    none = np.zeros(0, np.int64)
    for rows, queries in ((right.product_rows, none), (none, right.query_rows), (np.array([1]), np.array([18]))):
        empty = Validation(right.products, right.queries, right.judgments, rows, queries, right.columns)
        assert empty.score(job.model, CPU) == {}


def test_encoding_is_the_same_in_any_batch_size(experiment: config.Experiment, preprocess: Path) -> None:
    job, _ = begin(experiment, preprocess)
    table, rows = job.splits.train.products, np.arange(54)
    job.model.train()
    whole = encode_table(job.model, table, rows, job.splits.columns, "product", CPU)
    parts = encode_table(job.model, table, rows, job.splits.columns, "product", CPU, size=7)
    assert job.model.training
    torch.testing.assert_close(whole[0], parts[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(whole[1], parts[1])
    assert torch.equal(whole[1], torch.from_numpy(table.mask[:, job.splits.columns]))
    norms = whole[0].norm(dim=-1)
    torch.testing.assert_close(norms, whole[1].float(), atol=1e-4, rtol=0)  # unit vectors, zeros where missing


def quiet_losses(job: Supervised) -> dict[str, float]:
    """Of the first batch, without dropout and random views."""
    job.model.encoders.requires_grad_(False)
    job.objective.modality_dropout = 0
    job.model.eval()
    cached, job.cached = job.cached, True
    losses = job.objective(*next(job.batches(0)))
    job.cached = cached
    return {name: loss.item() for name, loss in {**losses, "sum": weighted_sum(losses, job.weights)}.items()}


@pytest.fixture(scope="module")
def cache(experiment: config.Experiment, preprocess: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pretrained = preprocess.parent / "pretrain"
    (pretrained / "checkpoint").mkdir(parents=True)
    (pretrained / "manifest.json").write_text('{"digest": "made by a test"}')
    folder = tmp_path_factory.mktemp("cache")
    build_cache(experiment, folder)
    return folder


def test_the_cache_trains_the_same(experiment: config.Experiment, preprocess: Path, cache: Path) -> None:
    plain, _ = begin(experiment, preprocess)
    splits = open_splits(
        preprocess, plain.model.modalities, 4, open_cache(cache, "product"), open_cache(cache, "query")
    )
    assert np.array_equal(splits.train.products.mask, plain.splits.train.products.mask)
    assert splits.train.products.ids == plain.splits.train.products.ids
    cached = Supervised(plain.model, splits, experiment, CPU, cached=True)
    cached.objective = plain.objective
    assert quiet_losses(cached) == pytest.approx(quiet_losses(plain), rel=5e-3)  # the cache holds float16


def test_frozen_encoders_train_the_same_from_their_outputs(
    experiment: config.Experiment, preprocess: Path, cache: Path
) -> None:
    """Overlaid outputs give the losses that running the frozen encoders gives, and the run moves nothing in them."""
    sets = {"encoders.text.adaptation": "frozen", "encoders.image.adaptation": "frozen"}
    chosen = config.update(experiment, sets)
    plain, _ = begin(chosen, preprocess)
    frozen = ("text", "image")
    sides = [open_overlay(preprocess, cache, side, frozen) for side in SIDES]
    splits = open_splits(preprocess, plain.model.modalities, 4, *sides)
    overlaid = Supervised(plain.model, splits, chosen, CPU)
    batch, *_ = next(overlaid.batches(0))
    assert {m: set(inputs) for m, (_, inputs) in batch.products.inputs.items()} == {
        "text": {"hidden"},
        "image": {"hidden"},
        "price": {"log_price"},
        "attributes": {"attribute_ids"},
    }
    overlaid.objective = plain.objective
    assert quiet_losses(overlaid) == pytest.approx(quiet_losses(plain), rel=5e-3)  # the cache holds float16
    fit = new_fit(overlaid.objective, chosen.train, 100)
    assert overlaid.epoch(fit)["loss"] > 0


def test_training_on_the_cache(experiment: config.Experiment, cache: Path) -> None:
    reports: list[tuple[int, float]] = []
    values = experiment.model_dump(mode="json")
    best = train_on_cache(cache, values, lambda epoch, score: reports.append((epoch, score)))
    assert [epoch for epoch, _ in reports] == [1, 2, 3]
    assert best == max(score for _, score in reports)
    again: list[tuple[int, float]] = []
    train_on_cache(cache, values, lambda epoch, score: again.append((epoch, score)))
    assert again == reports


def test_a_head_of_weight_zero_is_left_out(experiment: config.Experiment, preprocess: Path) -> None:
    sets = {f"loss.weights.{head}": 0 for head in ("image", "recommend", "align")}
    job, _ = begin(config.update(experiment, sets), preprocess)
    assert len(job.refresh()) == 0  # no catalogue is encoded for a recommender that is not trained
    assert set(job.objective(*next(job.batches(0)))) == {"text", "price", "attributes", "fused"}


def test_temperatures_are_learnt_and_bounded() -> None:
    model = FusedModel({"price": PriceEncoder([], 2)}, 8, "ensemble", {})
    objective = Objective(model, {}, config.Loss(temperature=0.05), 0.0)
    assert objective.scale("fused").item() == pytest.approx(20)
    with torch.no_grad():
        objective.scales["fused"].fill_(9.0)
    assert objective.scale("fused").item() == 100


def test_one_picture_in_a_batch_trains_without_batch_statistics() -> None:
    """A ResNet whose last map is one pixel refuses a single row in training mode: running statistics encode it."""
    encoder = ImageEncoder("resnet10", channels=8)
    model = FusedModel({"image": encoder}, 8, "ensemble", {}).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    side = Side(torch.tensor([[True], [False]]), {"image": (torch.tensor([0]), {"pixels": pixels})})
    hidden = hidden_of(model, side)["image"]
    assert encoder.training
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())
    hidden.sum().backward()
    assert next(encoder.parameters()).grad is not None
    assert torch.equal(hidden, encoder.eval()(pixels))
