"""A model on disk: config.json (how to build it) and model.safetensors (its weights). Loading never unpickles."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fuserank.errors import ModelError
from fuserank.models.build import rebuild_model
from fuserank.models.fused import FusedModel


def save_weights(module: nn.Module, file: Path) -> None:
    """A module's weights as safetensors."""
    save_file({name: tensor.contiguous().cpu() for name, tensor in module.state_dict().items()}, file)


def load_weights(module: nn.Module, file: Path) -> None:
    """Load safetensors into a module.

    Raises:
        ModelError: the file is missing, damaged or made for another model.
    """
    try:
        module.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"weights {file} do not load: {str(error).splitlines()[0]}", "Train again with the present config."
        ) from error


def save_model(model: FusedModel, folder: Path) -> None:
    """Write config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.description, indent=1), encoding="utf-8")
    save_weights(model, folder / "model.safetensors")


def load_model(folder: Path) -> FusedModel:
    """The model of a folder, in evaluation mode, on the CPU.

    Raises:
        ModelError: no model there, or files that do not fit together.
    """
    file = Path(folder) / "config.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {error}", "Run `fuserank train` first.") from error
    model = rebuild_model(description)
    load_weights(model, Path(folder) / "model.safetensors")
    return model.eval()
