"""Fits a click model on what was shown and what came of it, and says how good it is on the latest answers.

Answers are parted by time: the oldest train, the next stop training and calibrate, the latest judge. N shown products.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuserank.errors import PolicyError
from fuserank.evaluation.intervals import interval
from fuserank.evaluation.probabilities import auc, calibration_error, log_loss, reliability
from fuserank.losses.shown import shown_loss
from fuserank.models.click import HEADS, ClickModel, log_odds

TRAIN, CALIBRATE = 0.7, 0.15  # shares of the answers; the rest judges
BATCH, STEPS, EPOCHS, PATIENCE = 4096, 50, 60, 6  # rows of a step at most; steps of an epoch at least, were there rows
RATE, DECAY = 5e-3, 0.1
CLEAR = 2.0
DRAWN = 10.0  # of a calibrating slope to 1
FEWEST = 20  # of what a head tells, in each part, or it is not judged


@dataclass(frozen=True)
class Shown:
    """Shown products, answers oldest first."""

    features: np.ndarray  # float [N, F]
    places: np.ndarray  # int [N], 0-based
    happened: np.ndarray  # [N, 2] of HEADS, 1 or 0
    answers: np.ndarray  # int [N], rising: which answer it stood in


def fit_click(shown: Shown, seed: int = 0, bootstrap: int = 1000) -> tuple[ClickModel, dict]:
    """
    Returns:
        The model, and figures: `places`, and of each head that has enough to tell, on the latest answers: `auc`,
        `log_loss` of the model, of each place's own rate (`log_loss_place`) and their paired difference over answers
        (`saved`), `calibration_error`, `reliability` {"chance", "share", "size"}, `shown`, `happened`.

    Raises:
        PolicyError: fewer than FEWEST clicks in a part.
    """
    count = int(shown.answers[-1]) + 1 if len(shown.answers) else 0
    cuts = np.searchsorted(shown.answers, [int(count * TRAIN), int(count * (TRAIN + CALIBRATE))])
    parts = [slice(0, cuts[0]), slice(cuts[0], cuts[1]), slice(cuts[1], None)]
    clicks = [int(shown.happened[part, 0].sum()) for part in parts]
    if min(clicks) < FEWEST:
        raise PolicyError(
            f"{sum(clicks)} clicks on {count} answers ({', '.join(map(str, clicks))} to train, calibrate and judge) are"
            f" too few for a click model; each part needs {FEWEST}.",
            "Collect more feedback first.",
        )
    sides = [_tensors(shown, part) for part in parts]
    model = _fitted(sides[0], sides[1], seed)
    return model, _judge(model, shown, parts, sides[2], seed, bootstrap)


def cross_fitted(shown: Shown, folds: int = 5, seed: int = 0) -> np.ndarray:
    """[N, 2]: probabilities of HEADS, each part of the answers by a model of all others. For logs with too few clicks
    to keep some apart; a model's own answers are parted at random to stop training and to calibrate.

    Raises:
        PolicyError: fewer than FEWEST clicks.
    """
    if shown.happened[:, 0].sum() < FEWEST:
        raise PolicyError(f"{shown.happened[:, 0].sum():.0f} clicks are too few for a click model.", "Collect more.")
    fold = shown.answers * folds // (int(shown.answers[-1]) + 1)
    held = np.random.default_rng(seed).random(int(shown.answers[-1]) + 1)[shown.answers] < CALIBRATE * 2
    found = np.zeros(shown.happened.shape)
    for place in range(folds):
        own = fold == place
        model = _fitted(_tensors(shown, ~own & ~held), _tensors(shown, ~own & held), seed)
        with torch.inference_mode():
            found[own] = model(*_tensors(shown, own)[:2]).double().numpy()
    return found


def _fitted(train: tuple[Tensor, ...], held: tuple[Tensor, ...], seed: int) -> ClickModel:
    torch.manual_seed(seed)
    model = ClickModel(train[0].shape[1], int(train[1].max()) + 1)
    _standardise(model, train[0])
    _train(model, train, held, seed)
    _calibrate(model, held)
    return model.eval()


def _tensors(shown: Shown, part: slice | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    features = torch.from_numpy(np.ascontiguousarray(shown.features[part], np.float32))
    happened = torch.from_numpy(np.ascontiguousarray(shown.happened[part], np.float32))
    return features, torch.from_numpy(shown.places[part].astype(np.int64)), happened


def _standardise(model: ClickModel, features: Tensor) -> None:
    spread = features.std(0)
    model.center.copy_(features.mean(0))
    model.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))


def _train(model: ClickModel, train: tuple[Tensor, ...], held: tuple[Tensor, ...], seed: int) -> None:
    """First what each place earns, whatever stands there; then the features, which are kept if what is held back is
    told better by them, by more than CLEAR standard errors: of a log with few clicks nothing is learnt but their rate.
    """
    _, _, happened = train
    with torch.no_grad():  # begins at the rates, so that rare events do not cost the first epochs
        rates = happened.sum(0).clamp(min=0.5) / torch.tensor([len(happened), max(1.0, float(happened[:, 0].sum()))])
        model.linear.bias.copy_(torch.logit(rates.clamp(1e-4, 1 - 1e-4)))
    weights = [model.linear.weight, *model.network.parameters()]
    flat = [model.linear.bias, model.places]
    _descend(model, flat, [], train, held, seed)
    plain, before = copy.deepcopy(model.state_dict()), _costs(model, held)
    _descend(model, flat, weights, train, held, seed)
    gain = before - _costs(model, held)
    if not float(gain.mean()) > CLEAR * float(gain.std()) / len(gain) ** 0.5:
        model.load_state_dict(plain)


def _descend(
    model: ClickModel,
    flat: Sequence[Tensor],
    weights: Sequence[Tensor],
    train: tuple[Tensor, ...],
    held: tuple[Tensor, ...],
    seed: int,
) -> None:
    """Until the held part's likelihood has not grown for PATIENCE epochs; leaves the best weights."""
    features, places, happened = train
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=RATE)
    size = min(BATCH, -(-len(features) // STEPS))
    random, waited = torch.Generator().manual_seed(seed), 0
    best = (float(_costs(model, held).mean()), copy.deepcopy(model.state_dict()))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(features), generator=random).split(size):
            loss = shown_loss(model.log_chances(features[batch], places[batch]), happened[batch]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        now = float(_costs(model, held).mean())
        waited = 0 if now < best[0] - 1e-6 else waited + 1
        if not waited:
            best = (now, copy.deepcopy(model.state_dict()))
        if waited == PATIENCE:
            break
    model.load_state_dict(best[1])


@torch.no_grad()
def _costs(model: ClickModel, held: tuple[Tensor, ...]) -> Tensor:
    """Of each row of a part, both heads together. [N]"""
    log_chance = model.log_chances(held[0], held[1]).double()
    return torch.nn.functional.binary_cross_entropy_with_logits(
        log_odds(log_chance), held[2].double(), reduction="none"
    ).sum(1)


def _calibrate(model: ClickModel, held: tuple[Tensor, ...]) -> None:
    """Platt's line of each head that has FEWEST events to fit it on, drawn to the identity as by a few events more."""
    with torch.no_grad():
        odds = log_odds(model.log_chances(held[0], held[1])).double()
    for head in range(len(HEADS)):
        wanted = held[2][:, head].double()
        if not FEWEST <= float(wanted.sum()) <= len(wanted) - FEWEST:
            continue
        line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

        def cost(line=line, head=head, wanted=wanted, search=search) -> Tensor:
            search.zero_grad()
            told = odds[:, head] * line[0] + line[1]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(told, wanted, reduction="sum")
            loss = loss + DRAWN * (line[0] - 1) ** 2 + line[1] ** 2
            loss.backward()
            return loss

        search.step(cost)
        slope, offset = line.detach().tolist()
        if slope > 0:  # else the order itself is wrong, and no line mends that
            model.slope[head], model.offset[head] = slope, offset


@torch.inference_mode()
def _judge(
    model: ClickModel, shown: Shown, parts: list[slice], judged: tuple[Tensor, ...], seed: int, bootstrap: int
) -> dict:
    chances = model(judged[0], judged[1]).double().numpy()
    answers, places = shown.answers[parts[2]], shown.places[parts[2]]
    found: dict = {"places": model.looked_at().tolist()}
    for head, name in enumerate(HEADS):
        happened = shown.happened[parts[2], head].astype(float)
        if not FEWEST <= happened.sum() <= len(happened) - FEWEST:
            continue
        chance, rate = chances[:, head], _place_rates(shown, parts[0], head)[np.minimum(places, len(model.places))]
        saved = _cost(rate, happened) - _cost(chance, happened)
        _, answer = np.unique(answers, return_inverse=True)
        by_answer = np.bincount(answer, saved) / np.bincount(answer)
        mean, share, size = reliability(chance, happened)
        found[name] = {
            "shown": len(happened),
            "happened": int(happened.sum()),
            "auc": auc(chance, happened),
            "log_loss": log_loss(chance, happened),
            "log_loss_place": log_loss(rate, happened),
            "saved": interval(by_answer, bootstrap, seed=seed).as_dict(),
            "calibration_error": calibration_error(chance, happened),
            "reliability": {"chance": mean.tolist(), "share": share.tolist(), "size": size.tolist()},
        }
    return found


def _place_rates(shown: Shown, part: slice, head: int) -> np.ndarray:
    """[P]: what a place earned in training, whatever stood there."""
    places = shown.places[part]
    size = np.bincount(places)
    return (np.bincount(places, shown.happened[part, head]) + 0.5) / (size + 1.0)


def _cost(chance: np.ndarray, happened: np.ndarray) -> np.ndarray:
    kept = np.clip(chance, 1e-12, 1 - 1e-12)
    return -(happened * np.log(kept) + (1 - happened) * np.log1p(-kept))
