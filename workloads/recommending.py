"""The recommendations' half of `fuserank index`: what is counted beside the recommender, and how much it weighs."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fuserank.feedback.blend import fit_blend
from fuserank.feedback.neighbours import Neighbours
from fuserank.feedback.questions import questions
from fuserank.feedback.recommendations import Blend, Recommendations, save
from fuserank.feedback.sequences import training_sequences
from fuserank.models.recommender import Recommender
from fuserank.records.splits import VALIDATION


def fit(
    preprocess: Path, folder: Path, recommender: Recommender, ids: list[str], vectors: np.ndarray, seed: int
) -> dict[str, float]:
    """Count neighbours and popularity of what training saw, choose weights on validation users, write both to `folder`.

    Args:
        ids: N product ids; vectors: float32 [N, E], fused.

    Returns:
        The weights by name, and validation figures (feedback/blend.py).
    """
    file = preprocess / "events.parquet"
    events = pq.read_table(file) if file.is_file() else None
    histories = [] if events is None else [past["rows"] for past in training_sequences(events, ids)]
    turned = np.bincount(np.concatenate([np.zeros(0, np.int64), *histories]), minlength=len(ids))
    neighbours = Neighbours.count(histories, len(ids))
    asked = [] if events is None else list(questions(events, ids, VALIDATION)[0].values())
    found = Recommendations(recommender, neighbours, turned, Blend(), vectors)
    blend, figures = fit_blend(found, asked, seed)
    save(folder, neighbours, turned, blend)
    return vars(blend) | figures
