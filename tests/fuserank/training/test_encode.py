"""Which numbers of which precision: bfloat16 for encoders, a few shapes of text, float32 behind them on a CPU."""

from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from fuserank import config
from fuserank.training import encode
from fuserank.training.encode import ROWS, hidden_of
from fuserank.training.splits import open_splits
from fuserank.training.start import new_model
from fuserank.training.supervised import Supervised

CPU = torch.device("cpu")


@pytest.fixture
def job(experiment: config.Experiment, preprocess: Path) -> Supervised:
    torch.manual_seed(0)
    model = new_model(experiment, preprocess, None)
    return Supervised(model, open_splits(preprocess, model.modalities, 4), experiment, CPU)


class Shapes(TorchFunctionMode):
    """Notes the shapes and types that linear layers give."""

    def __init__(self) -> None:
        self.found: list[tuple[torch.Size, torch.dtype]] = []
        super().__init__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.nn.functional.linear:
            self.found.append((out.shape, out.dtype))
        return out


def test_texts_are_encoded_in_multiples_and_nothing_shows_of_it(
    job: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = next(iter(job.batches(0)))[0]
    batch.products.inputs = {"text": batch.products.inputs["text"]}
    count = len(batch.products.inputs["text"][0])
    assert count % ROWS
    job.model.train()
    found = []
    for rows in (ROWS, 1):
        monkeypatch.setattr(encode, "ROWS", rows)
        with torch.autocast("cpu", torch.bfloat16), Shapes() as shapes:
            found.append(hidden_of(job.model, batch.products)["text"])
        assert {s[0] for s, _ in shapes.found} == {-(-count // rows) * rows}
    assert found[0].shape == found[1].shape
    torch.testing.assert_close(*found, atol=0.02, rtol=0.02)  # dropout met the same rows alike


def test_only_encoders_compute_in_bfloat16_on_a_cpu(job: Supervised) -> None:
    batch, table, dropped = next(iter(job.batches(0)))
    with torch.autocast("cpu", torch.bfloat16), Shapes() as shapes:
        losses = job.objective(batch, table, dropped)
    width = {job.model.width, job.model.out_width}
    assert {dtype for shape, dtype in shapes.found if len(shape) == 3 and shape[-1] not in width} >= {torch.bfloat16}
    heads = [dtype for (shape, dtype) in shapes.found[-len(job.model.modalities) :]]
    assert set(heads) == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
