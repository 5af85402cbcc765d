"""Policy gradient on a simulated slate bandit: the true reward rises, the policy stays near the incumbent."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fuserank.errors import PolicyError
from fuserank.models.reranker import Reranker
from fuserank.training.policy_gradient import SlateLog, divergence, fine_tune, log_policy, top_k_correction

CANDIDATES, POSITIONS, WIDTH = 8, 3, 4
TASTE = torch.tensor([0.0, 1.5, -1.0, 0.5])


def click_chance(features: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(features @ TASTE - 1.5)


def bandit(count: int, seed: int = 0) -> tuple[Reranker, SlateLog]:
    """An incumbent that ranks by the first feature, which tells nothing, and slates drawn from its softmax policy."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    incumbent = Reranker(WIDTH)
    features = torch.randn(count, CANDIDATES, WIDTH, generator=draw)
    mask = torch.ones(count, CANDIDATES, dtype=torch.bool)
    mask[: count // 4, -2:] = False
    with torch.no_grad():
        chances = log_policy(incumbent(features), mask, 1.0).exp()
    rows = torch.multinomial(chances, POSITIONS, replacement=True, generator=draw)
    clicks = (torch.rand(count, POSITIONS, generator=draw) < click_chance(features).gather(1, rows)).float()
    return incumbent, SlateLog(features, mask, rows, chances.gather(1, rows), clicks)


def true_reward(network: nn.Module, seed: int = 9) -> float:
    """Of the three best by the network's scores, on requests that were in no log."""
    features = torch.randn(5000, CANDIDATES, WIDTH, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        best = network(features).topk(POSITIONS, dim=1).indices
    return float(click_chance(features).gather(1, best).mean())


def test_reward_rises_and_the_policy_stays_near() -> None:
    incumbent, log = bandit(2500)
    before = true_reward(incumbent)
    weights = {name: value.clone() for name, value in incumbent.state_dict().items()}
    rewards = []
    for limit in (0.02, 0.2, 2.0):
        tuned = fine_tune(incumbent, log, limit=limit)
        with torch.no_grad():
            kl = divergence(log_policy(incumbent(log.features), log.mask, 1.0),
                            log_policy(tuned.network(log.features), log.mask, 1.0)).mean()  # fmt: skip
        assert float(kl) <= limit
        assert tuned.kl == pytest.approx(float(kl), abs=1e-5)
        rewards.append(true_reward(tuned.network))
    assert rewards[0] > before + 0.01
    assert rewards[2] > rewards[1] > rewards[0]  # a longer leash goes further
    oracle = true_reward(_Taste())
    assert rewards[2] - before > 0.6 * (oracle - before)
    assert all(torch.equal(value, weights[name]) for name, value in incumbent.state_dict().items())


class _Taste(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features @ TASTE


def test_logs_of_a_biased_policy_are_corrected() -> None:
    """The serving policy shows candidate 0 ten times as often as the better candidate 1."""
    features = torch.eye(2).repeat(2000, 1, 1)
    served = torch.tensor([10 / 11, 1 / 11]).expand(2000, 2)
    rows = torch.multinomial(served, 1, generator=torch.Generator().manual_seed(0))
    clicks = (torch.rand(2000, 1, generator=torch.Generator().manual_seed(1)) < torch.tensor([0.4, 0.6])[rows]).float()
    log = SlateLog(features, torch.ones(2000, 2, dtype=torch.bool), rows, served.gather(1, rows), clicks)
    incumbent = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(1))
    nn.init.zeros_(incumbent[0].weight)  # type: ignore[arg-type]
    tuned = fine_tune(incumbent, log, limit=0.5)
    low, high = tuned.network(torch.eye(2)[None])[0].tolist()
    assert high > low + 0.5


def test_the_correction_is_the_derivative_of_the_chance_of_being_shown() -> None:
    chance = torch.tensor([0.05, 0.3, 0.9], requires_grad=True)
    (1 - (1 - chance) ** 4).sum().backward()
    assert chance.grad is not None
    np.testing.assert_allclose(top_k_correction(chance, 4).detach(), chance.grad, rtol=1e-5)
    assert (top_k_correction(chance, 1) == 1).all()


def test_divergence_by_hand() -> None:
    mask = torch.tensor([[True, True, False]])
    a, b = (log_policy(torch.tensor([scores]), mask, 2.0) for scores in ([0.0, 0.0, 9.0], [2 * math.log(3), 0.0, 9.0]))
    assert float(divergence(a, b)) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-5)
    assert float(divergence(a, a)) == 0


def test_refused() -> None:
    incumbent, log = bandit(40)
    with pytest.raises(PolicyError, match="above 0"):
        fine_tune(incumbent, log, limit=0.0)
    with pytest.raises(PolicyError, match="propensity"):
        SlateLog(log.features, log.mask, log.rows, log.propensities * 0, log.rewards)
    with pytest.raises(PolicyError, match="do not fit"):
        SlateLog(log.features, log.mask[:, :3], log.rows, log.propensities, log.rewards)
