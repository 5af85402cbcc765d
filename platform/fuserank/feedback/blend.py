"""How much item neighbours, popularity and likeness count beside the recommender: weights chosen on validation users by
NDCG@10 over the whole catalogue, one after the other until none moves."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fuserank.evaluation.recommend import rank_values
from fuserank.feedback.questions import Question
from fuserank.feedback.recommendations import Blend, Recommendations

STEPS = {
    "neighbours": (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0),
    "popularity": (-0.2, 0.0, 0.1, 0.2, 0.4, 0.8),
    "likeness": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0),
}
ASKED = 3000  # users at most
FEWEST = 50  # users that choose weights; of fewer the weights stay as they are
AT_ONCE = 128


def fit_blend(found: Recommendations, asked: Sequence[Question], seed: int) -> tuple[Blend, dict[str, float]]:
    """
    Args:
        found: changed to the weights chosen.
        asked: validation questions.

    Returns:
        The weights, and validation NDCG@10 of the recommender alone and of the blend (`recommender_ndcg@10`,
        `blend_ndcg@10`); no figures where there are too few questions.
    """
    if len(asked) < FEWEST:
        return found.blend, {}
    chosen = [asked[i] for i in np.sort(np.random.default_rng((seed, 9)).permutation(len(asked))[:ASKED])]
    best = Blend(0.0, 0.0, 0.0)
    alone = score = float(_ndcg(found, chosen, [best])[0])
    start = None
    while start != best:
        start = best
        for name, values in STEPS.items():
            tried = [dataclasses.replace(best, **{name: value}) for value in values]
            scores = _ndcg(found, chosen, tried)
            best, score = tried[int(np.argmax(scores))], float(np.max(scores))
    found.blend = best
    return best, {"recommender_ndcg@10": alone, "blend_ndcg@10": score}


def _ndcg(found: Recommendations, asked: Sequence[Question], blends: Sequence[Blend]) -> np.ndarray:
    """[blends], mean NDCG@10; equal scores rank worse."""
    values = np.zeros((len(blends), len(asked)))
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        parts = found.parts([past for past, _ in part])
        for b, blend in enumerate(blends):
            scores = parts.blended(blend)
            ranks = []
            for row, (past, target) in zip(scores, part, strict=True):
                mine = row[target]
                row[past["rows"]] = -np.inf
                row[target] = mine
                ranks.append(int((row >= mine).sum()))
            values[b, start : start + len(part)] = rank_values(np.array(ranks))["ndcg@10"]
    return values.mean(axis=1)
