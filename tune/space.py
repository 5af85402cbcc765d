"""What the tuner may change, as dotted config paths, and where it starts. Reads the experiment, writes nothing.

`tune.space` says what may be chosen. A loss weight of 0 leaves its head out, and the search keeps it out; so does a
modality that no product of the shop has. The fused loss keeps its weight: only the ratio of the others to it matters to
AdamW. The recommender's weight is not searched, because a trial is judged by search. A trial on cached encoder outputs
moves no encoder, so their learning rate and adaptation are searched only where trials train them. Keys of `index` are
searched only where they are listed, because every trial is then judged by its answers (workloads/trial_answers.py).
"""

import math
from collections.abc import Collection
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from fuserank.config import Experiment

WEIGHTS = ("text", "image", "audio", "price", "attributes", "align")
DIGITS = 4  # significant digits of a searched number


def space(experiment: Experiment, present: Collection[str] | None = None) -> dict[str, BaseDistribution]:
    """Dotted path → what it may be; every one contains the experiment's own value.

    Args:
        present: modalities that products of the shop have; None for all that are configured.
    """
    options, found = experiment.tune.space, {}
    there = [m for m in experiment.encoders.modalities if present is None or m in present]
    _choice(found, experiment, "fusion.kind", options.kinds)
    _choice(found, experiment, "fusion.width", [w for w in options.widths if _fits(experiment, w)])
    _range(found, experiment, "fusion.modality_dropout", options.modality_dropout, log=False)
    for name in WEIGHTS:
        path = f"loss.weights.{name}"
        if value(experiment, path) > 0 and (name == "align" or name in there):
            _range(found, experiment, path, options.weights)
    _range(found, experiment, "train.learning_rate", options.learning_rate)
    if experiment.tune.training == "whole":
        _range(found, experiment, "train.encoder_learning_rate", options.encoder_learning_rate)
        for name in there:
            kinds = [kind for kind in options.adaptations if _adapts(experiment, name, kind)]
            if kinds:
                _choice(found, experiment, f"encoders.{name}.adaptation", kinds)
    _choice(found, experiment, "index.hybrid", options.hybrids)
    _range(found, experiment, "index.hybrid_weight", options.hybrid_weight)
    _choice(found, experiment, "index.rerank_depth", options.rerank_depths)
    _choice(found, experiment, "index.candidates", options.candidates)
    _choice(found, experiment, "index.vectors", options.vectors)
    return found


def value(experiment: Experiment, path: str) -> Any:
    """The experiment's own value of a dotted path."""
    node: Any = experiment
    for part in path.split("."):
        node = getattr(node, part)
    return node


def starting_points(experiment: Experiment, present: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Trial 0 is the experiment as it stands; then it with each other fusion kind, for at most half the trials."""
    here = {path: value(experiment, path) for path in space(experiment, present)}
    others = [kind for kind in experiment.tune.space.kinds if kind != experiment.fusion.kind]
    points = [here, *({**here, "fusion.kind": kind} for kind in dict.fromkeys(others))]
    return points[: max(1, experiment.tune.trials // 2)]


def rounded(params: dict[str, Any]) -> dict[str, Any]:
    """Searched numbers to four significant digits, so that best.yaml says what was trained and reads well."""
    return {path: _round(number) if isinstance(number, float) else number for path, number in params.items()}


def _choice(found: dict[str, BaseDistribution], experiment: Experiment, path: str, among: list) -> None:
    if among:
        found[path] = CategoricalDistribution(list(dict.fromkeys([value(experiment, path), *among])))


def _range(
    found: dict[str, BaseDistribution],
    experiment: Experiment,
    path: str,
    ends: tuple[float, float] | None,
    log: bool = True,
) -> None:
    if ends is not None:
        own = value(experiment, path)
        low, high = min(ends[0], own), max(ends[1], own)
        found[path] = FloatDistribution(low, high, log=log and low > 0)


def _fits(experiment: Experiment, width: int) -> bool:
    recommender = experiment.encoders.recommender
    return recommender is None or width % recommender.heads == 0


def _adapts(experiment: Experiment, modality: str, kind: str) -> bool:
    """Whether the encoder has the choice: price and attributes have none, our own audio network two."""
    encoder = getattr(experiment.encoders, modality)
    if not hasattr(encoder, "adaptation"):
        return False
    if modality == "audio" and encoder.model is None and kind not in ("frozen", "full"):
        return False
    return not (kind == "adalora" and experiment.train.strategy == "fsdp")


def _round(number: float) -> float:
    if number == 0:
        return 0.0
    return round(number, DIGITS - 1 - math.floor(math.log10(abs(number))))
