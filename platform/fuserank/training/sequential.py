"""The recommender's own part of training: what a user turns to next, over the whole catalogue, on fused vectors that
stand still. The supervised epochs before it let behaviour shape those vectors; here ids and order are learnt to the
end, which on fixed vectors costs little.

N products · U users · E width of a fused vector · W width of the recommender.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fuserank import config
from fuserank.evaluation.recommend import rank_values
from fuserank.feedback.questions import Question
from fuserank.feedback.sequences import pad_history
from fuserank.losses.next_item import log_inclusion, next_item_loss
from fuserank.models.recommender import UNKNOWN, Recommender
from fuserank.training.loop import Fit, make_fit, run_epoch
from fuserank.training.state import FILE, capture, load_state, write_state

WEIGHTS = {"next_item": 1.0}
LOOKS = 10  # validations on the way
ASKED = 4000  # users of a validation, at most
BIN = 4  # events: histories of nearly one length share a batch


class NextItem(nn.Module):
    """Batch of histories → the loss of the next product after every event."""

    def __init__(self, recommender: Recommender, vectors: Tensor, share: Tensor, options: config.Recommend):
        """vectors: [N, E]. share: [N], of all turns."""
        super().__init__()
        self.recommender, self.options = recommender, options
        self.vectors, self.share = vectors, share

    def forward(self, history: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """rows, types, gaps, mask: [B, T + 1], the last of each real event being a target only."""
        rows, mask, size = history["rows"], history["mask"], len(self.vectors)
        there = mask[:, 1:]
        device, sampled = rows.device, self.options.negatives
        chance = None
        if sampled and sampled < size:
            drawn = torch.randint(size, (sampled,), device=device)
            candidates = torch.unique(torch.cat([rows[mask], drawn]))
            chance = log_inclusion(self.share[candidates], int(there.sum()), sampled, size)
        else:
            candidates = torch.arange(size, device=device)
        hidden = torch.rand(len(candidates), device=device) < self.options.id_dropout
        hidden |= self.share[candidates] == 0
        table = self.recommender.table(self.vectors[candidates], torch.where(hidden, UNKNOWN, candidates))
        place = torch.searchsorted(candidates, rows)
        items = table[place[:, :-1].clamp(max=len(candidates) - 1)]
        users = self.recommender(items, history["types"][:, :-1], history["gaps"][:, :-1], mask[:, :-1])
        return {"next_item": next_item_loss(users, table, place[:, 1:], there, log_chance=chance)}


def fit_recommender(
    recommender: Recommender,
    vectors: Tensor,
    histories: Mapping[str, np.ndarray],
    asked: Sequence[Question],
    options: config.Recommend,
    seed: int,
    device: torch.device,
    log: Callable[[int, int, dict[str, float]], Any],
    folder: Path | None = None,
    keep: str = "best",
) -> dict[str, float]:
    """Train for `options.epochs`; leaves the best weights by validation NDCG@10 in the recommender.

    Args:
        vectors: [N, E] fused vectors of the catalogue.
        histories: arrays [U, T + 1] (feedback/sequences.py), T at most what the recommender looks back.
        asked: validation questions.
        log: called with (epochs done, epochs, metrics) at every validation.
        folder: where the state is kept from validation to validation, so that a killed run goes on; None for nowhere.
        keep: `best`, or `last`.

    Returns:
        `hr@10` and `ndcg@10` on the questions (none where there are no questions) and the mean loss.
    """
    rows = histories["rows"]
    counts = np.bincount(rows[histories["mask"]], minlength=len(vectors)).astype(np.float32)
    share = torch.from_numpy(counts / max(counts.sum(), 1))
    if recommender.ids is not None:  # what nobody turned to has nothing to learn: it stands by its content
        with torch.no_grad():
            recommender.ids.weight[torch.from_numpy(counts == 0).to(recommender.ids.weight.device)] = 0
    module = NextItem(recommender, vectors.to(device), share.to(device), options).to(device)
    chosen = [asked[i] for i in np.sort(np.random.default_rng((seed, 8)).permutation(len(asked))[:ASKED])]
    steps = options.epochs * -(-len(rows) // options.batch_size)
    groups = [{"params": list(recommender.parameters()), "lr": options.learning_rate}]
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        fit = make_fit(module, groups, steps, 0.05, options.weight_decay)
        best: dict[str, Any] = {"score": -1.0, "weights": {}, "metrics": {}}
        if folder is not None and (folder / FILE).is_file():
            best = load_state(fit, folder)["best"]
        every = max(1, math.ceil(options.epochs / LOOKS))
        while fit.epoch < options.epochs:
            losses = run_epoch(fit, _batches(histories, options.batch_size, seed, fit.epoch, device), WEIGHTS, device)
            if fit.epoch % every and fit.epoch < options.epochs:
                continue
            metrics = losses | validate(recommender, vectors, chosen, device)
            log(fit.epoch, options.epochs, metrics)
            if keep == "last" or not chosen or metrics["ndcg@10"] > best["score"]:
                weights = {name: value.detach().cpu().clone() for name, value in recommender.state_dict().items()}
                best = {"score": metrics.get("ndcg@10", 0.0), "weights": weights, "metrics": metrics}
            if folder is not None:
                _keep(fit, best, folder)
    recommender.load_state_dict(best["weights"])
    recommender.eval()
    return best["metrics"]


def _batches(
    histories: Mapping[str, np.ndarray], size: int, seed: int, epoch: int, device: torch.device
) -> Iterator[tuple[dict[str, Tensor]]]:
    """One epoch; histories of like length together, cut to the longest of a batch, batches in random order."""
    random = np.random.default_rng((seed, epoch, 7))
    lengths = histories["mask"].sum(1)
    order = np.argsort(lengths // BIN + random.random(len(lengths)), kind="stable")
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    for place in random.permutation(len(parts)):
        users = parts[place]
        longest = max(2, int(lengths[users].max()))
        yield ({name: torch.from_numpy(values[users, :longest]).to(device) for name, values in histories.items()},)


@torch.inference_mode()
def validate(
    recommender: Recommender, vectors: Tensor, asked: Sequence[Question], device: torch.device, k: int = 10
) -> dict[str, float]:
    """HR@k and NDCG@k over the whole catalogue; what a user has turned to is not ranked. Equal scores rank worse."""
    if not asked:
        return {}
    training = recommender.training
    recommender.eval()
    table = recommender.table(vectors.to(device))
    ranks = []
    for start in range(0, len(asked), 256):
        part = asked[start : start + 256]
        past = pad_history([question[0] for question in part], recommender.events)
        sides = (torch.from_numpy(past[name]).to(device) for name in ("types", "gaps", "mask"))
        items = table[torch.from_numpy(past["rows"]).to(device)]
        scores = (recommender.user_vectors(items, *sides) @ table.T).float().cpu()
        for row, (seen, target) in zip(scores, part, strict=True):
            mine = row[target].clone()
            row[torch.from_numpy(seen["rows"])] = -torch.inf
            row[target] = mine
            ranks.append(int((row >= mine).sum()))
    recommender.train(training)
    return {name: float(values.mean()) for name, values in rank_values(np.array(ranks), k).items()}


def _keep(fit: Fit, best: dict[str, Any], folder: Path) -> None:
    """Replace the state on disk in one step."""
    beside = folder / f".{os.getpid()}"
    write_state(capture(fit, {"best": best}), beside)
    (beside / FILE).replace(folder / FILE)
    beside.rmdir()
