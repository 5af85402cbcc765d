"""How much of an encoder training moves: all of it, nothing, or small parts beside frozen weights.

LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685. AdaLoRA: Zhang et al. 2023, https://arxiv.org/abs/2303.10512;
both by peft. Bottleneck adapters: Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, and for convolutions their
residual form, Rebuffi et al. 2017, https://arxiv.org/abs/1705.08045.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fuserank.config import Adapter
from fuserank.errors import ModelError

PARTS = ("lora", "adalora", "adapter")
"""Adaptations that train small parts of their own."""
AFTER = ("output.dense", "output_dense", "out_proj", "fc2", "mlp.3", "lin2", "conv2", "conv3")
"""Layers that end a block of attention, of a feed-forward network or of convolutions: adapters stand behind them."""


class Bottleneck(nn.Module):
    """y + up(gelu(down(y))) of a layer's output y; up starts at zero, so that nothing changes at first."""

    def __init__(self, layer: nn.Module, width: int):
        super().__init__()
        self.layer = layer
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
            self.down, self.up = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        elif isinstance(layer, nn.Linear):
            channels = layer.out_features
            self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        else:
            raise ModelError(f"no adapter fits behind a {type(layer).__name__}.", "Name linear or convolution layers.")
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.layer(inputs)
        return out + self.up(nn.functional.gelu(self.down(out)))


class Adaptation:
    """What `adapt` did to one encoder, for the training loop and for export."""

    def __init__(
        self, kind: str, backbone: nn.Module | None = None, tuner: Any = None, description: dict[str, Any] | None = None
    ):
        """description: what `add_bottlenecks` needs to build an exported encoder again; None where nothing stays."""
        self.kind, self.backbone, self.description = kind, backbone, description
        self.tuner: Any = tuner

    def after_step(self, step: int) -> None:
        """AdaLoRA gives rank to the layers that need it. Call after each optimiser step (counted from 1), gradients
        still there."""
        if self.kind == "adalora":
            self.tuner.update_and_allocate(step)

    def orthogonality(self) -> Tensor | None:
        """AdaLoRA's regulariser: how far its singular vectors are from orthonormal, the mean Frobenius norm."""
        if self.kind != "adalora":
            return None
        found = []
        for name, parameter in self.tuner.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
                found.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return torch.stack(found).mean()

    def parts(self) -> dict[str, Tensor]:
        """The trained parts alone, by name: what an adapter weighs on disk."""
        if self.backbone is None or self.kind not in PARTS:
            return {}
        return {name: p.detach() for name, p in self.backbone.named_parameters() if p.requires_grad}

    def merge(self) -> None:
        """Fold LoRA's parts into the weights they stand beside, for export. Bottlenecks are not linear and stay."""
        if self.tuner is not None:
            self.tuner.merge_and_unload()
            self.tuner, self.kind = None, "full"

    def state_dict(self) -> dict[str, Any]:
        """What AdaLoRA remembers from step to step; empty for the others."""
        if self.kind != "adalora":
            return {}
        ranks = self.tuner.rankallocator
        pattern = self.tuner.peft_config[self.tuner.trainable_adapter_name].rank_pattern
        return {
            "ipt": dict(ranks.ipt),
            "exp_avg_ipt": dict(ranks.exp_avg_ipt),
            "exp_avg_unc": dict(ranks.exp_avg_unc),
            "rank_pattern": pattern,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        if self.kind != "adalora" or not state:
            return
        ranks = self.tuner.rankallocator
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            getattr(ranks, name).update(state[name])
        self.tuner.peft_config[self.tuner.trainable_adapter_name].rank_pattern = state["rank_pattern"]


def adapt(encoder: nn.Module, kind: str, options: Adapter, steps: int) -> Adaptation:
    """Make an encoder trainable as told; what it computes does not change.

    Args:
        encoder: with its network as `backbone`, where `kind` is one of PARTS.
        kind: full, frozen, lora, adalora or adapter.
        steps: of the whole training, which AdaLoRA plans for.

    Raises:
        ModelError: no layer of the network fits.
    """
    if kind == "full":
        return Adaptation(kind)
    encoder.requires_grad_(False)
    if kind == "frozen":
        return Adaptation(kind)
    backbone = encoder.backbone
    assert isinstance(backbone, nn.Module)
    unused = getattr(encoder, "unused", ())
    names = [name for name in layers_of(backbone, kind, options.layers) if not name.startswith(unused)]
    if kind == "adapter":
        add_bottlenecks(backbone, names, options.width)
        return Adaptation(kind, backbone, description={"layers": names, "width": options.width})
    if kind == "lora":
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        low = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=names, bias="none"
        )
        return Adaptation(kind, backbone, LoraModel(backbone, low, "default"))
    from peft import AdaLoraConfig
    from peft.tuners.adalora import AdaLoraModel

    config = AdaLoraConfig(
        init_r=options.rank + options.rank // 2,
        target_r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=names,
        tinit=steps // 10,
        tfinal=steps // 3,
        deltaT=max(1, steps // 100),
        total_step=max(steps, 2),
    )
    return Adaptation(kind, backbone, AdaLoraModel(backbone, config, "default"))


def layers_of(backbone: nn.Module, kind: str, wanted: list[str]) -> list[str]:
    """Names of the layers that get parts: those that end as `wanted` says, or every one that fits.

    Raises:
        ModelError: there are none.
    """
    kinds = (nn.Linear,) if kind == "adalora" else (nn.Linear, nn.Conv2d)
    fitting = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, kinds) and getattr(module, "groups", 1) == 1
    ]
    ends = tuple(wanted) or (AFTER if kind == "adapter" else ("",))
    chosen = [name for name in fitting if name.endswith(ends)]
    if not chosen:
        raise ModelError(
            f"adaptation {kind}: no layer of this encoder fits{f' {wanted}' if wanted else ''}.",
            f"Name layers in adapter.layers, e.g. {', '.join(fitting[-3:]) or 'of another encoder'}.",
        )
    return chosen


def add_bottlenecks(backbone: nn.Module, layers: list[str], width: int) -> None:
    """Put a bottleneck adapter behind each of the named layers."""
    for name in layers:
        backbone.set_submodule(name, Bottleneck(backbone.get_submodule(name), width))
