"""Fine-tunes a scoring network, as the reranker is, on logged slates by policy gradient, top-K off-policy corrected.

After Chen et al. 2019 (https://arxiv.org/abs/1812.02353), a slate having S positions: the network's scores are a
softmax policy π; the gradient of a slate's reward is that of each slot, weighted by π/β of the serving policy β and by
λ = S (1 − π)^(S−1), which is how much one more chance of a draw still helps a candidate that S draws may choose. A
penalty on KL(incumbent ‖ π) is raised until the limit holds. B answers · K candidates · F features · S positions.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fuserank.errors import PolicyError
from fuserank.models.reranker import Context

BATCH = 256
HELD = 0.8  # share of the KL limit at which the penalty begins to grow


@dataclass(frozen=True)
class SlateLog:
    """Served slates."""

    features: Tensor  # [N, K, F]
    mask: Tensor  # bool [N, K]
    rows: Tensor  # int64 [N, S] candidates shown, −1 for none
    propensities: Tensor  # [N, S] of the serving policy
    rewards: Tensor  # [N, S]
    context: Context | None = None  # for a network that attends

    def __post_init__(self) -> None:
        n, k = self.mask.shape
        if self.features.shape[:2] != (n, k) or not self.rows.shape == self.propensities.shape == self.rewards.shape:
            raise PolicyError("slates do not fit: features [N, K, F], mask [N, K]; rows, propensities, rewards [N, S].")
        shown = self.rows >= 0
        if int(self.rows.max()) >= k or not bool((self.propensities[shown] > 0).all()):
            raise PolicyError("every slot shown needs a candidate of its list and a propensity above 0.")

    def part(self, rows: Tensor) -> "SlateLog":
        """Some of the slates."""
        context = self.context.part(rows) if self.context else None
        own = (self.propensities[rows], self.rewards[rows], context)
        return SlateLog(self.features[rows], self.mask[rows], self.rows[rows], *own)


def scores(network: nn.Module, log: SlateLog) -> Tensor:
    """[N, K] of the network, which gets the features alone where the log has no context."""
    return network(log.features) if log.context is None else network(log.features, log.context)


@torch.no_grad()
def all_scores(network: nn.Module, log: SlateLog) -> Tensor:
    """`scores` without gradients, BATCH slates at a time."""
    return torch.cat([scores(network, log.part(rows)) for rows in torch.arange(len(log.rows)).split(BATCH)])


def top_k_correction(chance: Tensor, size: int) -> Tensor:
    """λ = ∂(1 − (1 − π)^S)/∂π = S (1 − π)^(S−1)."""
    return size * (1 - chance) ** (size - 1)


def log_policy(scores: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Log of the softmax policy over candidates; −inf where there is none. [B, K] → [B, K]."""
    return (scores / temperature).masked_fill(~mask, float("-inf")).log_softmax(1)


def divergence(incumbent: Tensor, candidate: Tensor) -> Tensor:
    """KL(incumbent ‖ candidate) of log policies, nats. [B, K], [B, K] → [B]."""
    finite = torch.isfinite(incumbent)
    gap = torch.where(finite, incumbent - candidate, torch.zeros_like(incumbent))
    return (incumbent.exp() * gap).sum(1)


@dataclass(frozen=True)
class Tuned:
    """The network that came out, and the history: KL and weighted reward after every pass."""

    network: nn.Module
    kl: float
    history: list[dict[str, float]]


def fine_tune(
    network: nn.Module,
    log: SlateLog,
    limit: float,
    epochs: int = 20,
    learning_rate: float = 1e-2,
    temperature: float = 1.0,
    cap: float = 20.0,
    seed: int = 0,
) -> Tuned:
    """A copy of the network, tuned; the incumbent itself is left as it is.

    Args:
        network: [B, K, F], and a Context where the log has one → [B, K] scores.
        limit: nats; the mean KL over the log from the incumbent's softmax policy to the new one's stays at or below it.
        temperature: of both softmax policies; cap: largest importance weight (a bias that tames the variance).

    Returns:
        The last weights whose KL was within the limit: those of the incumbent if none were.

    Raises:
        PolicyError: a limit, temperature or cap ≤ 0.
    """
    if min(limit, temperature, cap) <= 0:
        raise PolicyError(f"limit, temperature and cap must be above 0, got {limit}, {temperature} and {cap}.")
    generator = torch.Generator().manual_seed(seed)
    tuned = copy.deepcopy(network).eval()  # no dropout: the policy that is tuned is the policy that is served
    for parameter in tuned.parameters():
        parameter.requires_grad_(True)
    incumbent = log_policy(all_scores(network.eval(), log), log.mask, temperature)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=learning_rate)
    shown = log.rows >= 0
    baseline = torch.where(shown, log.rewards, 0).sum(0) / shown.sum(0).clamp(min=1)  # of each position
    kept, kept_kl, history, penalty = copy.deepcopy(tuned.state_dict()), 0.0, [], 1.0
    for _ in range(epochs):
        for batch in torch.randperm(len(log.rows), generator=generator).split(BATCH):
            mine = log.part(batch)
            current = log_policy(scores(tuned, mine), mine.mask, temperature)
            chosen = current.gather(1, mine.rows.clamp(min=0))
            chance = chosen.exp().detach()
            weight = (chance / mine.propensities).clamp(max=cap) * top_k_correction(chance, mine.rows.shape[1])
            gain = torch.where(shown[batch], weight * (mine.rewards - baseline) * chosen, torch.zeros_like(chosen))
            loss = penalty * divergence(incumbent[batch], current).mean() - gain.sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        kl = float(divergence(incumbent, log_policy(all_scores(tuned, log), log.mask, temperature)).mean())
        history.append({"kl": kl, "penalty": penalty})
        if kl <= limit:
            kept, kept_kl = copy.deepcopy(tuned.state_dict()), kl
        if kl > HELD * limit:
            penalty *= 1.5
        elif kl < 0.5 * limit:
            penalty /= 1.5
    tuned.load_state_dict(kept)
    for parameter, original in zip(tuned.parameters(), network.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return Tuned(tuned, kept_kl, history)
