"""The bank: what it keeps is what the encoders say, and a step beside it is a step on everything."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.training.bank import Bank, fill, mine, restore
from fuserank.training.data import gather
from fuserank.training.encode import encode_table
from fuserank.training.splits import open_splits
from fuserank.training.start import new_model
from fuserank.training.supervised import Supervised

CPU = torch.device("cpu")


@pytest.fixture
def job(experiment: config.Experiment, preprocess: Path) -> Supervised:
    torch.manual_seed(0)
    model = new_model(experiment, preprocess, None)
    return Supervised(model, open_splits(preprocess, model.modalities, 4), experiment, CPU)


def bank_of(job: Supervised, size: int = 1000, draw: tuple[int, ...] = (0, 0)) -> Bank:
    return fill(job.model, job.splits.train, size, CPU, draw)


def test_it_holds_what_the_encoders_say(job: Supervised) -> None:
    data, bank = job.splits.train, bank_of(job, 30)
    assert len(set(bank.rows.tolist())) == 30
    assert set(bank.rows.tolist()) <= set(data.product_rows.tolist())
    assert np.array_equal(bank.mask, data.products.mask[bank.rows][:, data.columns])
    assert job.model.training  # left as it was found
    job.model.eval()
    side = gather(data.products, bank.rows, data.modalities, data.columns)
    for modality, (places, inputs) in side.inputs.items():
        expected = job.model.hidden(modality, inputs)
        torch.testing.assert_close(bank.hidden[modality][places], expected, atol=1e-5, rtol=1e-4)


def test_the_draw_decides(job: Supervised) -> None:
    assert np.array_equal(bank_of(job, 20).rows, bank_of(job, 20).rows)
    assert not np.array_equal(bank_of(job, 20).rows, bank_of(job, 20, (0, 1)).rows)
    assert np.array_equal(bank_of(job).rows, np.sort(job.splits.train.product_rows))


def test_beside_leaves_the_batch_out(job: Supervised) -> None:
    bank = bank_of(job, 30)
    batch = np.concatenate([bank.rows[3:9], np.setdiff1d(job.splits.train.product_rows, bank.rows)[:4]])
    rows, side = bank.beside(batch)
    assert np.array_equal(rows, np.setdiff1d(bank.rows, batch))
    for column, modality in enumerate(bank.modalities):
        places = side.inputs[modality][0]
        assert torch.equal(side.mask[:, column].nonzero()[:, 0], places)
        kept = torch.from_numpy(np.searchsorted(bank.rows, rows))
        assert torch.equal(side.inputs[modality][1]["hidden"], bank.hidden[modality][kept][places])


def test_fresh_outputs_replace_old_ones(job: Supervised) -> None:
    data, bank = job.splits.train, bank_of(job, 30)
    before = {m: h.clone() for m, h in bank.hidden.items()}
    rows = np.concatenate([np.setdiff1d(data.product_rows, bank.rows)[:5], bank.rows[[20, 2, 11]]])
    side = gather(data.products, rows, data.modalities, data.columns)
    fresh = {m: torch.randn(len(places), before[m].shape[1]) for m, (places, _) in side.inputs.items()}
    bank.update(rows, side, fresh)
    for modality, (places, _) in side.inputs.items():
        for place, row in enumerate(bank.rows):
            here = (places == rows.tolist().index(row)).nonzero()[:, 0] if row in rows else torch.zeros(0)
            expected = fresh[modality][here[0]] if len(here) else before[modality][place]
            assert torch.equal(bank.hidden[modality][place], expected)


def test_a_step_beside_the_bank_is_a_step_on_everything(job: Supervised, experiment: config.Experiment) -> None:
    """Without dropout and random views the losses equal those of one batch that holds every product."""
    job.objective.modality_dropout = 0
    job.cached = True  # no random views
    job.model.eval()
    sets = {"train.batch_size": 10, "train.positives": 0.0, "train.queries": 100}
    job.experiment = config.update(experiment, {**sets, "train.bank": 1000})
    batch, table, dropped = next(job.batches(0))
    assert batch.bank is not None
    assert len(dropped) == len(job.splits.train.product_rows)
    beside = job.objective(batch, table, dropped)
    job.experiment = config.update(experiment, {**sets, "train.batch_size": 1000, "train.bank": 0})
    whole = job.objective(*next(job.batches(0)))
    for name in ("fused", "text", "image", "price"):
        assert beside[name].item() == pytest.approx(whole[name].item(), rel=1e-4)
    beside["fused"].backward()
    encoder = next(job.model.encoders["text"].parameters())
    assert encoder.grad is not None  # through the batch's own products


def test_the_encoders_outputs_come_back_after_the_step(job: Supervised, experiment: config.Experiment) -> None:
    job.experiment = config.update(experiment, {"train.bank": 1000})
    batches = job.batches(0)
    batch, table, dropped = next(batches)
    job.objective(batch, table, dropped)
    encoded = copy.deepcopy(job.objective.encoded)
    following, _, _ = next(batches)
    assert following.bank is not None
    rows = np.setdiff1d(np.sort(job.splits.train.product_rows), following.rows.numpy())
    places, inputs = following.bank.inputs["text"]
    mine = batch.products.inputs["text"][0]
    again = 0
    for slot, row in enumerate(batch.rows[mine].tolist()):
        if row in rows[places]:
            kept = inputs["hidden"][rows[places].tolist().index(row)]
            assert torch.equal(kept, encoded["text"][slot])
            again += 1
    assert again


def test_hard_negatives_are_what_ranks_first_and_is_no_answer(job: Supervised) -> None:
    data, bank = job.splits.train, bank_of(job)
    asked = data.query_rows
    found = mine(job.model, data, bank, asked, 12)
    assert job.model.training  # left as it was found
    assert len(found) == len(set(found.tolist())) == 12
    job.model.eval()
    vectors, mask = encode_table(job.model, data.products, bank.rows, data.columns, "product", CPU)
    questions = encode_table(job.model, data.queries, asked, data.columns, "query", CPU)
    with torch.no_grad():
        scores = (job.model.query_vectors(*questions) @ job.model.product_vectors(vectors, mask).T).numpy()
    scores[data.judgments.matrix(asked, bank.rows) > 0] = -np.inf
    ranked = np.argsort(-scores, 1)
    expected: list[int] = []
    for place in range(len(bank.rows)):  # every query's first choice, then every query's second one
        expected += [int(p) for p in dict.fromkeys(ranked[:, place]) if p not in expected]
    assert found.tolist() == expected[:12]


def test_a_part_of_the_bank_is_mined(job: Supervised) -> None:
    data = job.splits.train
    half = fill(job.model, data, 16, CPU, (0, 1), mined=0.5)
    assert len(set(half.rows.tolist())) == len(half.rows) == 16
    assert np.array_equal(half.rows, np.sort(half.rows))
    pool = fill(job.model, data, 8 + 4 * 8, CPU, (0, 1))
    hard = pool.rows[mine(job.model, data, pool, data.query_rows, 8)]
    assert set(hard.tolist()) <= set(half.rows.tolist()) <= set(pool.rows.tolist())
    for modality, values in half.hidden.items():
        torch.testing.assert_close(values, pool.hidden[modality][np.searchsorted(pool.rows, half.rows)])


def test_it_comes_back_as_it_was(job: Supervised) -> None:
    bank = fill(job.model, job.splits.train, 16, CPU, (0, 1), mined=0.5)
    again = restore(job.splits.train, bank.state(), CPU)
    assert np.array_equal(again.rows, bank.rows)
    assert np.array_equal(again.mask, bank.mask)
    assert all(torch.equal(again.hidden[m], values) for m, values in bank.hidden.items())


def test_alignment_meets_the_hard_negatives(job: Supervised, experiment: config.Experiment) -> None:
    """With hard negatives the same batch's alignment loss is larger: more stands against each pair."""
    job.objective.modality_dropout = 0
    job.experiment = config.update(experiment, {"train.bank": 40, "train.mined": 0.5, "train.batch_size": 10})
    job.model.eval()
    batch = next(job.batches(1))
    plain = job.objective(*batch)["align"].item()
    job.objective.mined = True
    assert job.objective(*batch)["align"].item() > plain + 0.1
