"""Adapted encoders through the whole training loop and out as a model that serves."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fuserank import config
from fuserank.models.checkpoint import load_model
from fuserank.training.encode import encode_table
from fuserank.training.splits import open_splits
from fuserank.training.start import adapt_encoders, describe, new_model
from fuserank.training.supervised import Supervised, new_fit
from fuserank.training.worker import export

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["lora", "adalora", "adapter"])
def test_train_export_load(kind: str, experiment: config.Experiment, preprocess: Path, tmp_path: Path) -> None:
    chosen = config.update(experiment, {"encoders.text.adaptation": kind, "encoders.text.adapter.rank": 2})
    torch.manual_seed(0)
    model = new_model(chosen, preprocess, None)
    splits = open_splits(preprocess, model.modalities, 0)
    steps = 2 * splits.train.steps(chosen.train.batch_size)
    adaptations = adapt_encoders(model, chosen.encoders, steps)
    parts = {name: value.clone() for name, value in adaptations["text"].parts().items()}
    job = Supervised(model, splits, chosen, CPU, adaptations=adaptations)
    fit = new_fit(job.objective, chosen.train, steps)
    losses = [job.epoch(fit) for _ in range(2)]
    assert ("orthogonal" in losses[0]) == (kind == "adalora")
    counts = describe(model)["encoders.text"]
    assert counts["trained"] == sum(part.numel() for part in parts.values()) < counts["total"] / 2
    moved = adaptations["text"].parts()
    assert any(not torch.equal(moved[name], part) for name, part in parts.items())
    rows = torch.arange(len(splits.train.products.ids)).numpy()
    vectors, mask = encode_table(model, splits.train.products, rows, splits.columns, "product", CPU)
    export(model, adaptations, tmp_path / "model")
    alone = load_file(tmp_path / "model" / "text.adapter.safetensors")
    assert alone.keys() == parts.keys()
    served = load_model(tmp_path / "model")
    again, _ = encode_table(served, splits.train.products, rows, splits.columns, "product", CPU)
    assert torch.allclose(again[mask], vectors[mask], atol=2e-2)  # bfloat16 where the machine has it
    assert not any("lora" in name for name in served.state_dict())
