"""M_V: pixels → one vector, by any torchvision classification backbone or Hugging Face vision model.

ResNet: He et al. 2016, https://arxiv.org/abs/1512.03385. `resnet10` is ours: the same blocks, one a stage, in a width
that a CPU trains quickly on small pictures.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fuserank.errors import ModelError
from fuserank.models.encoders.hugging_face import build_backbone, fetch_backbone, normalisation

# Mean and spread of ImageNet's channels: what published torchvision weights expect, and folders that name no others.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _resnet10(channels: int) -> nn.Module:
    """Four stages of one basic block, `channels` wide in the first and twice as wide in each further one."""
    from torchvision.models.resnet import BasicBlock

    stem = [nn.Conv2d(3, channels, 5, 2, 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    stages, incoming = [], channels
    for stage in range(4):
        outgoing, stride = channels * 2**stage, 1 if stage == 0 else 2
        shortcut = nn.Sequential(nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing))
        stages.append(BasicBlock(incoming, outgoing, stride, shortcut if stage else None))
        incoming = outgoing
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(incoming, 1))


def _torchvision(name: str, channels: int) -> nn.Module:
    from torchvision import models

    if name == "resnet10":
        return _resnet10(channels)
    if name.lower() not in models.list_models(module=models):  # classification only: no detectors, no segmentation
        raise ModelError(
            f"image model {name!r} is neither a torchvision classification model nor a folder.",
            "Write e.g. resnet18, resnet50, vit_b_16, or the path of a saved Hugging Face vision model.",
        )
    return models.get_model(name, weights=None)


def _headless(backbone: nn.Module, name: str) -> int:
    """Replace the classifier (the last Linear) by the identity; returns the width it read."""
    last = None
    for path, module in backbone.named_modules():
        if isinstance(module, nn.Linear):
            last = (path, module)
    if last is None:
        raise ModelError(
            f"image model {name!r} has no linear classifier to remove.", "Choose a classification backbone."
        )
    path, linear = last
    parent, _, leaf = path.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, nn.Identity())
    return linear.in_features


class ImageEncoder(nn.Module):
    """[B, 3, H, W] uint8 → [B, width]."""

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        architecture: dict[str, Any] | None = None,
        channels: int = 32,
    ):
        """
        Args:
            model: `resnet10`, a torchvision name, or the folder of a Hugging Face vision model.
            weights: a safetensors file for a torchvision model.
            channels: width of resnet10's first stage; the others have their own.
            architecture: the Hugging Face config to build from, when a saved model is loaded again.

        Raises:
            ModelError: no such model, or weights that do not fit it.
        """
        super().__init__()
        self.architecture = architecture
        if architecture is not None or Path(model).is_dir():
            self.backbone, self.width = self._hugging_face(model, architecture)
        else:
            self.backbone = _torchvision(model, channels)
            if weights is not None:
                self._load(weights)
            self.width = _headless(self.backbone, model)
        told = self.architecture or {}
        for name, values in (("mean", told.get("image_mean", MEAN)), ("spread", told.get("image_std", SPREAD))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # the layout CPU and GPU convolutions are fastest in

    def _hugging_face(self, model: str, architecture: dict[str, Any] | None) -> tuple[nn.Module, int]:
        if architecture is None:
            backbone, self.architecture = fetch_backbone(model)
            self.architecture |= normalisation(Path(model))
        else:
            backbone, self.architecture = build_backbone(architecture)
        width = self.architecture.get("hidden_size") or (self.architecture.get("hidden_sizes") or [None])[-1]
        if width is None:
            raise ModelError(f"model {model!r} tells no width (hidden_size).", "Choose a vision model, e.g. a ViT.")
        return backbone, int(width)

    def _load(self, weights: str) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            self.backbone.load_state_dict(load_file(weights))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"image weights {weights} do not load: {' '.join(str(error).split())[:300]}",
                "Give the safetensors file of this very model's state_dict, classifier included.",
            ) from error

    def check_size(self, height: int, width: int) -> None:
        """Try one empty picture, before hours are spent on real ones.

        Raises:
            ModelError: the network takes no pictures of that size (the positions of a ViT are made for one).
        """
        training = self.training
        try:
            with torch.inference_mode():
                self.eval()(torch.zeros(1, 3, height, width, dtype=torch.uint8))
        except (AssertionError, RuntimeError, ValueError) as error:
            wanted = (self.architecture or {}).get("image_size") or getattr(self.backbone, "image_size", None)
            wanted = [wanted, wanted] if isinstance(wanted, int) else wanted
            raise ModelError(
                f"the image model takes no pictures of {height} x {width} pixels: {' '.join(str(error).split())[:200]}",
                f"Set preprocess.image_size to {wanted or 'the size that it was trained with'}.",
            ) from error
        self.train(training)

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = (pixels.float() / 255 - self.mean) / self.spread
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        if self.architecture is None:
            return self.backbone(scaled).flatten(1)
        out = self.backbone(pixel_values=scaled)
        pooled = getattr(out, "pooler_output", None)
        return (pooled if pooled is not None else out.last_hidden_state.mean(1)).flatten(1)
