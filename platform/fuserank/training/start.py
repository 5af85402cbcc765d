"""The model that training starts from: built, loaded with what `pretrain` left, and made trainable as told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fuserank import config
from fuserank.errors import ModelError
from fuserank.features.featurizer import FILE, Featurizer
from fuserank.models.adapt import Adaptation, adapt
from fuserank.models.build import build_model
from fuserank.models.checkpoint import load_fitting, load_weights
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.training.calibrate import calibrate
from fuserank.training.data import Inputs, Judgments, RankingData

TOKENIZER = Path("tokenizer") / "tokenizer.json"


def new_model(experiment: config.Experiment, preprocess: Path, pretrained: Path | None) -> FusedModel:
    """The config's model, with what `pretrained` holds of it: encoders (`<modality>.safetensors`), projections
    (`<modality>.projection.safetensors`) and the recommender, of which only what fits is taken: their ends belong to
    one width and one kind of fusion. Then, where `train.start` names a trained model, what fits of that.

    Raises:
        ModelError: the image model takes no pictures of this size; train.start is no trained model, or its encoders
            are not this config's.
    """
    settings = Featurizer.load(preprocess).settings
    model = build_model(
        experiment.encoders,
        experiment.fusion,
        settings.vocabulary,
        settings.text_tokens,
        settings.mels,
        list(settings.price_edges),
        len(settings.attributes.values),
        None if (of := settings.extractor) is None else {"span": of.span, "masked": of.masked},
        sum(pq.read_metadata(part).num_rows for part in (preprocess / "features").glob("*.parquet")),
    )
    if "image" in model.modalities:
        model.encoders["image"].check_size(*settings.image_size)  # type: ignore[operator]
    if pretrained is None:
        return model
    for modality in model.modalities:
        if (file := pretrained / f"{modality}.safetensors").is_file():
            load_weights(model.encoders[modality], file)
        if (file := pretrained / f"{modality}.projection.safetensors").is_file():
            load_weights(model.projections[modality], file, fitting=True)
            model.calibrated.add(modality)
    if model.recommender is not None and (file := pretrained / "recommender.safetensors").is_file():
        load_weights(model.recommender, file, fitting=True)
    if experiment.train.start is not None:
        _go_on(model, Path(experiment.train.start), preprocess)
    return model


def _go_on(model: FusedModel, folder: Path, preprocess: Path) -> None:
    """Take from a trained model all that fits; its encoders have to fit as a whole. Attribute values are a shop's own:
    where they differ, that encoder begins anew."""
    theirs, ours = (part / TOKENIZER for part in (folder.parent.parent / "preprocess", preprocess))
    if theirs.is_file() and ours.is_file() and theirs.read_bytes() != ours.read_bytes():
        raise ModelError(
            f"train.start {folder} was trained with another tokenizer.",
            f"Set preprocess.tokenizer to {theirs.parent}, so that words keep their numbers.",
        )
    without = ("attributes",) if _other_values(folder.parent.parent / "preprocess", preprocess) else ()
    for modality in load_fitting(model, folder, without):
        model.calibrated.add(modality)


def _other_values(theirs: Path, ours: Path) -> bool:
    """Whether ids of attribute values mean something else there."""
    files = [part / FILE for part in (theirs, ours)]
    if not all(file.is_file() for file in files):
        return False
    known = [json.loads(file.read_text(encoding="utf-8")).get("attributes", {}).get("values") for file in files]
    return known[0] != known[1]


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
