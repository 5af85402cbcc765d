"""Adaptations: nothing changes at first, only the parts are trained, and what is exported computes the same."""

import pytest
import torch
from torch import nn

from fuserank.config import Adapter
from fuserank.errors import ModelError
from fuserank.models.adapt import Adaptation, adapt, add_bottlenecks
from fuserank.models.encoders.image import ImageEncoder
from fuserank.models.encoders.text import TextEncoder, small_bert

STEPS = 40
OPTIONS = Adapter(rank=4, width=6)


def encoder(name: str) -> tuple[nn.Module, tuple]:
    torch.manual_seed(0)
    if name == "text":
        ids = torch.randint(1, 50, (6, 7))
        return TextEncoder(small_bert(50, 2, 16, 2, 16)).eval(), (ids, torch.ones_like(ids))
    return ImageEncoder("resnet10", channels=8).eval(), (torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8),)


def train(module: nn.Module, inputs: tuple, adaptation: Adaptation, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 0.02)
    target = torch.randn(6, module.width, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    for step in range(1, steps + 1):
        loss = (module(*inputs) - target).square().mean()
        if (apart := adaptation.orthogonality()) is not None:
            loss = loss + 0.1 * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        adaptation.after_step(step)


@pytest.mark.parametrize("kind", ["lora", "adapter", "adalora"])
@pytest.mark.parametrize("name", ["text", "image"])
def test_only_the_parts_learn(name: str, kind: str) -> None:
    module, inputs = encoder(name)
    if (name, kind) == ("image", "adalora"):
        with pytest.raises(ModelError, match="no layer"):  # a residual network has no linear layer left
            adapt(module, kind, OPTIONS, STEPS)
        return
    with torch.no_grad():
        before = module(*inputs)
    whole = sum(p.numel() for p in module.parameters())
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    adaptation = adapt(module, kind, OPTIONS, STEPS)
    with torch.no_grad():
        assert torch.allclose(module(*inputs), before, atol=1e-5 if kind == "adalora" else 0)
    parts = adaptation.parts()
    assert 0 < sum(p.numel() for p in parts.values()) < whole
    train(module, inputs, adaptation, STEPS)
    old = {k.replace("base_layer.", "").replace(".layer.weight", ".weight"): v for k, v in module.state_dict().items()}
    assert all(torch.equal(old[name], weight) for name, weight in weights.items() if name in old)
    with torch.no_grad():
        after = module(*inputs)
        assert (after - before).abs().max() > 0.05
        adaptation.merge()
        assert torch.allclose(module(*inputs), after, atol=1e-4)
    if kind != "adapter":
        assert module.state_dict().keys() == weights.keys()  # nothing of the parts is left: any loader reads it


def test_adalora_shares_out_its_ranks() -> None:
    module, inputs = encoder("text")
    adaptation = adapt(module, "adalora", OPTIONS, STEPS)
    layers = sum("lora_E" in name for name in adaptation.parts())
    train(module, inputs, adaptation, STEPS)
    kept = sum(sum(row) for row in adaptation.state_dict()["rank_pattern"].values())
    assert kept == OPTIONS.rank * layers
    alive = sum(int((p != 0).sum()) for name, p in adaptation.parts().items() if "lora_E" in name)
    assert alive <= kept


def test_adalora_resumes_where_it_was() -> None:
    (one, inputs), (other, _) = encoder("text"), encoder("text")
    first, second = (adapt(module, "adalora", OPTIONS, STEPS) for module in (one, other))
    train(one, inputs, first, 20)
    other.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    for module, adaptation in ((one, first), (other, second)):
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
        for step in range(21, 31):
            optimizer.zero_grad()
            module(*inputs).square().mean().backward()
            optimizer.step()
            adaptation.after_step(step)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_bottlenecks_are_built_again_from_their_description() -> None:
    module, inputs = encoder("image")
    adaptation = adapt(module, "adapter", OPTIONS, STEPS)
    train(module, inputs, adaptation, 5)
    again, _ = encoder("image")
    assert adaptation.description is not None
    add_bottlenecks(again.backbone, **adaptation.description)  # type: ignore[arg-type]
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(*inputs), module(*inputs))


def test_frozen_and_full_and_layers_that_do_not_exist() -> None:
    module, _ = encoder("text")
    adapt(module, "full", OPTIONS, STEPS)
    assert all(p.requires_grad for p in module.parameters())
    adapt(module, "frozen", OPTIONS, STEPS)
    assert not any(p.requires_grad for p in module.parameters())
    with pytest.raises(ModelError, match=r"adapter\.layers"):
        adapt(module, "lora", Adapter(layers=["nothing"]), STEPS)
    found = adapt(module, "lora", Adapter(layers=["query", "value"]), STEPS).parts()
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in found} == {"query", "value"}
