"""What the tuner may change, as dotted config paths, and where it starts. Reads the experiment, writes nothing.

A loss weight of 0 leaves its head out, and the search keeps it out. The fused loss keeps its weight: only the ratio
of the others to it matters to AdamW. The recommender's weight is not searched, because a trial is judged by search;
nor is the learning rate, because a trial trains on cached encoder outputs with one of its own (tune.learning_rate).
"""

import math
from typing import Any

from ray import tune
from ray.tune.search.sample import Domain

from fuserank.config import Experiment

SEARCHED_WEIGHTS = ("text", "image", "audio", "price", "attributes", "align")
WEIGHT_RANGE = (0.2, 2.0)  # not less: in `train` a head also teaches its encoder, which no trial can see
DROPOUT_RANGE = (0.0, 0.5)
DIGITS = 4  # significant digits of a searched number


def space(experiment: Experiment) -> dict[str, Domain]:
    """Dotted path → Ray Tune domain; every range contains the experiment's own value."""
    kinds = list(dict.fromkeys([experiment.fusion.kind, *experiment.tune.kinds]))
    found: dict[str, Domain] = {"fusion.kind": tune.choice(kinds)}
    dropout = experiment.fusion.modality_dropout
    found["fusion.modality_dropout"] = tune.uniform(DROPOUT_RANGE[0], max(DROPOUT_RANGE[1], dropout))
    for name in SEARCHED_WEIGHTS:
        weight = getattr(experiment.loss.weights, name)
        if weight > 0 and (name == "align" or name in experiment.encoders.modalities):
            found[f"loss.weights.{name}"] = tune.loguniform(min(WEIGHT_RANGE[0], weight), max(WEIGHT_RANGE[1], weight))
    return found


def value(experiment: Experiment, path: str) -> Any:
    """The experiment's own value of a dotted path."""
    node: Any = experiment
    for part in path.split("."):
        node = getattr(node, part)
    return node


def starting_points(experiment: Experiment) -> list[dict[str, Any]]:
    """Trial 0 is the experiment as it stands; then it with each other fusion kind, for at most half the trials."""
    present = {path: value(experiment, path) for path in space(experiment)}
    others = [kind for kind in experiment.tune.kinds if kind != experiment.fusion.kind]
    points = [present, *({**present, "fusion.kind": kind} for kind in dict.fromkeys(others))]
    return points[: max(1, experiment.tune.trials // 2)]


def rounded(params: dict[str, Any]) -> dict[str, Any]:
    """Searched numbers to four significant digits, so that best.yaml says what was trained and reads well."""
    return {path: _round(number) if isinstance(number, float) else number for path, number in params.items()}


def _round(number: float) -> float:
    if number == 0:
        return 0.0
    return round(number, DIGITS - 1 - math.floor(math.log10(abs(number))))
