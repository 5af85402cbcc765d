"""What training starts from: an earlier model, and a share of the labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.errors import ModelError
from fuserank.models.checkpoint import save_model
from fuserank.training.splits import open_splits
from fuserank.training.start import new_model


@pytest.fixture
def trained(experiment: config.Experiment, preprocess: Path, tmp_path: Path) -> Path:
    """A model whose weights are nothing like fresh ones."""
    model = new_model(experiment, preprocess, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.125)
    save_model(model, tmp_path / "run" / "train" / "model")
    return tmp_path / "run" / "train" / "model"


def going_on(experiment: config.Experiment, folder: Path, **sets: object) -> config.Experiment:
    return config.update(experiment, {"train.start": str(folder), **sets})


def test_training_goes_on_from_a_trained_model(experiment: config.Experiment, preprocess: Path, trained: Path) -> None:
    model = new_model(going_on(experiment, trained), preprocess, Path("nothing"))
    taken = {name: bool((p == 0.125).all()) for name, p in model.named_parameters()}
    assert not taken.pop("recommender.ids.weight")  # what is learnt of ids belongs to that shop's rows
    assert all(taken.values())
    assert model.calibrated == set(model.modalities)


def test_another_fusion_takes_what_fits(experiment: config.Experiment, preprocess: Path, trained: Path) -> None:
    chosen = going_on(experiment, trained, **{"fusion.kind": "joint", "encoders.recommender": None})
    model = new_model(chosen, preprocess, Path("nothing"))
    assert all((p == 0.125).all() for p in model.encoders.parameters())
    assert all((p == 0.125).all() for p in model.heads.parameters())
    assert not all((p == 0.125).all() for p in model.fusion.parameters())


def test_other_encoders_are_refused(experiment: config.Experiment, preprocess: Path, trained: Path) -> None:
    with pytest.raises(ModelError, match=r"encoders\.image\.\S+ differs"):
        new_model(going_on(experiment, trained, **{"encoders.image.channels": 4}), preprocess, Path("nothing"))
    with pytest.raises(ModelError, match="not a trained model"):
        new_model(going_on(experiment, trained.parent), preprocess, Path("nothing"))


def test_another_tokenizer_is_refused(experiment: config.Experiment, preprocess: Path, trained: Path) -> None:
    tokenizer = trained.parents[1] / "preprocess" / "tokenizer"
    tokenizer.mkdir(parents=True)
    mine = (preprocess / "tokenizer" / "tokenizer.json").read_bytes()
    (tokenizer / "tokenizer.json").write_bytes(mine)
    new_model(going_on(experiment, trained), preprocess, Path("nothing"))
    (tokenizer / "tokenizer.json").write_bytes(mine + b" ")
    with pytest.raises(ModelError, match="another tokenizer") as caught:
        new_model(going_on(experiment, trained), preprocess, Path("nothing"))
    assert str(tokenizer) in str(caught.value.hint)


def test_attributes_of_another_shop_begin_anew(experiment: config.Experiment, preprocess: Path, trained: Path) -> None:
    """The same ids stand for other values there."""
    theirs = trained.parents[1] / "preprocess"
    theirs.mkdir()
    held = json.loads((preprocess / "features.json").read_text())
    for reverse in (False, True):
        held["attributes"]["values"].sort(reverse=reverse)
        (theirs / "features.json").write_text(json.dumps(held))
        model = new_model(going_on(experiment, trained), preprocess, Path("nothing"))
        assert not (model.encoders["attributes"].embedding.weight == 0.125).all()  # type: ignore[union-attr,operator]
        assert model.calibrated == {"text", "image", "price"}
        assert all((p == 0.125).all() for m in ("text", "image", "price") for p in model.encoders[m].parameters())
    (theirs / "features.json").write_bytes((preprocess / "features.json").read_bytes())
    model = new_model(going_on(experiment, trained), preprocess, Path("nothing"))
    assert all((p == 0.125).all() for p in model.encoders.parameters())


def test_a_share_of_the_labels(preprocess: Path) -> None:
    """Queries are split here: of half the labels about half the queries are left, and a quarter is part of the half."""
    whole, half, quarter = (open_splits(preprocess, ("text", "image"), 0, labels=share) for share in (1.0, 0.5, 0.25))
    assert set(quarter.train.query_rows) < set(half.train.query_rows) < set(whole.train.query_rows)
    assert 0.25 < len(half.train.query_rows) / len(whole.train.query_rows) < 0.75
    assert np.array_equal(half.train.product_rows, whole.train.product_rows)
    assert np.array_equal(half.validation.query_rows, whole.validation.query_rows)
