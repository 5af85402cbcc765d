"""A model on disk: config.json (how to build it) and model.safetensors (its weights). Loading never unpickles."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fuserank.errors import ConfigError, ModelError
from fuserank.models.build import rebuild_model
from fuserank.models.candidates import feature_names
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker

WEIGHTS = "model.safetensors"


def save_weights(module: nn.Module, file: Path) -> None:
    """A module's weights as safetensors."""
    save_tensors(module.state_dict(), file)


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Named tensors as safetensors."""
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, file)


def load_weights(module: nn.Module, file: Path, without: tuple[str, ...] = (), fitting: bool = False) -> None:
    """Load safetensors into a module, leaving out weights whose names begin with one of `without`.

    Args:
        fitting: take the weights whose shape is the module's, and leave the others as they are.

    Raises:
        ModelError: the file is missing, damaged or made for another model.
    """
    try:
        weights = load_file(file)
        if fitting:
            mine = module.state_dict()
            weights = mine | {name: w for name, w in weights.items() if name in mine and w.shape == mine[name].shape}
        module.load_state_dict({name: weights[name] for name in weights if not name.startswith(without or ("\0",))})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"weights {file} do not load: {' '.join(str(error).split())[:300]}", "Train again with the present config."
        ) from error


def save_model(model: FusedModel, folder: Path) -> None:
    """Write config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.description, indent=1), encoding="utf-8")
    save_weights(model, folder / WEIGHTS)


def load_model(folder: Path, encoders: Collection[str] | None = None) -> FusedModel:
    """The model of a folder, in evaluation mode, on the CPU.

    Args:
        encoders: build these encoders only (a serving replica runs one or none, and building costs seconds and
            memory); None for all.

    Raises:
        ModelError: no model there, or files that do not fit together.
    """
    file = Path(folder) / "config.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {error}", "Run `fuserank train` first.") from error
    try:
        absent = {} if encoders is None else _absent(Path(folder) / WEIGHTS, description, encoders)
        model = rebuild_model(description, absent)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file} does not describe a fused model: {error!r}", "Run `fuserank train` again.") from error
    load_weights(model, Path(folder) / WEIGHTS, tuple(f"encoders.{modality}." for modality in absent))
    return model.eval()


def load_fitting(model: FusedModel, folder: Path, without: Collection[str] = ()) -> list[str]:
    """Take the weights of a trained model's folder that fit; returns the modalities whose projections did.

    Args:
        without: modalities whose encoders and projections are not taken.

    Raises:
        ModelError: no model there, or its encoder of one of `model`'s modalities has other weights.
    """
    file = folder / WEIGHTS
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{folder} is not a trained model: {error}", "Give a folder such as runs/<name>/train/model."
        ) from error
    left = tuple(f"{part}.{modality}." for modality in without for part in ("encoders", "projections"))
    left += ("recommender.ids.",)  # of that shop's rows
    weights = {name: w for name, w in weights.items() if not name.startswith(left)}
    mine = model.state_dict()
    fits = {name: w for name, w in weights.items() if name in mine and w.shape == mine[name].shape}
    there = {name.split(".")[1] for name in weights if name.startswith("encoders.")}
    lost = [n for n in mine if n.startswith("encoders.") and n.split(".")[1] in there and n not in fits]
    if lost:
        raise ModelError(
            f"the encoders of {folder} are not those of this config: {lost[0]} differs.",
            "Give the encoders section of the config that it was trained with.",
        )
    model.load_state_dict(fits, strict=False)
    return [m for m in model.modalities if all(n in fits for n in mine if n.startswith(f"projections.{m}."))]


def _absent(file: Path, description: dict[str, Any], encoders: Collection[str]) -> dict[str, int]:
    """Modality → width of the encoders left out; the width is that of the standardisation after it."""
    try:
        with safe_open(file, "pt") as weights:
            names = {m: f"projections.{m}.0.center" for m in description["encoders"] if m not in encoders}
            return {m: weights.get_slice(name).get_shape()[0] for m, name in names.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"weights {file} do not load: {error}", "Train again with the present config.") from error


def load_reranker(folder: Path, modalities: tuple[str, ...]) -> Reranker:
    """The reranker beside a model (reranker.safetensors); its sizes are those of its weights.

    Raises:
        ModelError: it is missing, or its weights do not fit the model's modalities.
    """
    file = Path(folder) / "reranker.safetensors"
    try:
        with safe_open(file, "pt") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        sizes = (len(modalities), shapes["asked.weight"][1], shapes["whole.weight"][1]) if "kinds" in shapes else ()
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"reranker {file} does not load: {error}", "Run `fuserank index` again.") from error
    reranker = Reranker(len(feature_names(modalities)), *sizes)
    load_weights(reranker, file)
    return reranker.eval()
