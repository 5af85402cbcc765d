"""The loop: means, warm-up and decay, clipping, a loss that is no number; and mixed precision by device."""

import math

import pytest
import torch
from torch import Tensor, nn

from fuserank.training.encode import autocast, bfloat16_pays
from fuserank.training.loop import Fit, make_fit, run_epoch

CPU = torch.device("cpu")


class Line(nn.Module):
    """(w · x − y)², and a second loss now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: float, y: float) -> dict[str, Tensor]:
        loss = (self.weight * x - y) ** 2
        return {"square": loss} | ({"rare": self.weight * 0 + 6} if x > 1 else {})


def fit_of(steps: int, warmup: float = 0.0, lr: float = 0.1):
    module = Line()
    return make_fit(module, [{"params": list(module.parameters()), "lr": lr}], steps, warmup, 0.0)


def test_it_learns_and_reports_means() -> None:
    fit = fit_of(60)
    seen: list[int] = []
    batches, weights = [(1.0, 3.0), (2.0, 6.0)], {"square": 1.0, "rare": 0.5}
    first = run_epoch(fit, batches, weights, CPU, "float32", 10.0, lambda: seen.append(fit.step))
    assert first["rare"] == 6  # the mean over the steps that had it
    assert first["square"] == pytest.approx((9 + (0.1 * 2 - 6) ** 2) / 2, rel=1e-3)
    assert first["loss"] == pytest.approx(first["square"] + 0.5 * 6 / 2, rel=1e-5)
    assert seen == [1, 2]
    for _ in range(29):
        last = run_epoch(fit, [(1.0, 3.0), (2.0, 6.0)], {"square": 1.0, "rare": 0.5}, CPU, "float32", 10.0)
    assert fit.epoch == 30
    assert last["square"] < first["square"] / 4


def test_warm_up_and_cosine() -> None:
    fit, rates = fit_of(100, warmup=0.2, lr=1.0), []
    for _ in range(100):
        rates.append(fit.schedule.get_last_lr()[0])
        fit.optimizer.step()
        fit.schedule.step()
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[20:] == pytest.approx([0.02 + 0.49 * (1 + math.cos(math.pi * s / 80)) for s in range(80)])
    assert fit.schedule.get_last_lr()[0] == pytest.approx(0.02)


def test_gradients_are_clipped() -> None:
    module = Line()
    plain = torch.optim.SGD(module.parameters(), lr=1.0)
    fit = Fit(module, plain, torch.optim.lr_scheduler.LambdaLR(plain, lambda step: 1.0))
    run_epoch(fit, [(1.0, 1000.0)], {"square": 1.0}, CPU, "float32", clip=0.5)
    assert module.weight.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_number_stops_and_names_the_step(bad: float) -> None:
    fit = fit_of(10)
    with pytest.raises(FloatingPointError, match="step 1 of epoch 0"):
        run_epoch(fit, [(1.0, 3.0), (bad, 3.0)], {"square": 1.0, "rare": 0.0}, CPU, "float32")
    assert math.isfinite(fit.module.weight.item())  # type: ignore[operator, union-attr]  # the bad step was not taken


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuserank.training.encode.bfloat16_pays", bfloat16_pays)  # the machine as it is
    left = torch.randn(4, 4)
    for precision, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert (left @ left).dtype == kind
    with autocast(CPU):
        assert ((left @ left).dtype == torch.bfloat16) == bfloat16_pays(CPU)
    assert not bfloat16_pays(torch.device("meta"))
