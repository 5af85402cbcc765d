"""Hugging Face backbones: read from a hub name or folder with their weights, or built anew from their config.

Weights are read as safetensors only: a pickled checkpoint can run code, so a folder that holds nothing else is refused.
"""

import json
from pathlib import Path
from typing import Any

import torch

from fuserank.errors import ModelError

POOLER = "without_pooler"  # our mark in the config: the checkpoint had no pooler, so a random one was taken off


def fetch_backbone(name: str) -> tuple[Any, dict[str, Any]]:
    """A pretrained backbone in float32 and the config (as a dict) that `build_backbone` builds the same one from.

    Args:
        name: a hub name or a folder.

    Raises:
        ModelError: it cannot be read, holds no safetensors, or lacks weights of its own architecture.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel  # slow to import, so only where a Hugging Face model is really built

    try:
        backbone, info = AutoModel.from_pretrained(
            name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"model {name!r} cannot be loaded: {' '.join(str(error).split())[:300]}",
            "Give a hub name while online, or the folder of a model saved with safetensors.",
        ) from error
    missing = sorted(info["missing_keys"])
    if unknown := [key for key in missing if not key.startswith("pooler.")]:
        raise ModelError(
            f"model {name!r} lacks {len(unknown)} of its weights, among them {unknown[0]}.",
            "Save the whole model with save_pretrained, and check that its config.json belongs to its weights.",
        )
    architecture = backbone.config.to_dict()
    if missing:
        backbone.pooler = None
        architecture[POOLER] = True
    return backbone, architecture


def normalisation(folder: Path) -> dict[str, list[float]]:
    """Mean (`image_mean`) and spread (`image_std`) of the channels that a vision model's folder asks for in its
    preprocessor_config.json; nothing where it asks for none."""
    try:
        asked = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {name: asked.get(name) for name in ("image_mean", "image_std")} if asked.get("do_normalize", True) else {}
    return found if found and all(isinstance(v, list) and len(v) == 3 for v in found.values()) else {}


def build_backbone(architecture: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A backbone with fresh float32 weights from a config as a dict; nothing is fetched from anywhere.

    Raises:
        ModelError: no such architecture, or numbers that do not fit together.
    """
    from transformers import AutoConfig, AutoModel

    options = dict(architecture)
    bare = options.pop(POOLER, False)
    try:
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        backbone = AutoModel.from_config(config, dtype=torch.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"this Hugging Face config builds no model: {error}", "Check the encoder's numbers."
        ) from error
    built = backbone.config.to_dict()
    if bare:
        backbone.pooler = None
        built[POOLER] = True
    return backbone, built
