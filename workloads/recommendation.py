"""The recommendation half of `fuserank evaluate`: each user's last product, ranked over the whole catalogue.

Reads preprocess/events.parquet and a generation; returns figures. Systems: the model's recommender M_R, item neighbours
and popularity, the latter two counted over what training saw. U users · N products · E width of a fused vector.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuserank.config import Experiment
from fuserank.evaluation.recommend import ItemNeighbours, hold_out, popularity, rank_values, target_rank
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import Values, compare
from fuserank.feedback.sequences import HELD_OUT, pad_history, user_sequences
from fuserank.models.fused import FusedModel
from fuserank.models.recommender import Recommender
from fuserank.retrieval.generation import Generation

USERS_AT_ONCE = 256


def evaluate_recommendation(
    experiment: Experiment, preprocess: Path, generation: Generation, model: FusedModel
) -> tuple[dict | None, pa.Table | None]:
    """Figures as report.build takes them and one row a user and system; None, None without a recommender or events."""
    file = preprocess / "events.parquet"
    if model.recommender is None or not file.is_file():
        return None, None
    sequences = user_sequences(pq.read_table(file), generation.catalogue.ids)
    cuts = {user: hold_out(sequence["rows"].tolist(), HELD_OUT) for user, sequence in sequences.items()}
    users = [user for user, cut in cuts.items() if cut is not None]
    if not users:
        return None, None
    known = [{name: array[: cuts[user]] for name, array in sequences[user].items()} for user in users]
    targets = [int(sequences[user]["rows"][-1]) for user in users]
    size = generation.catalogue.size
    trained = [sequence["rows"][:-HELD_OUT].tolist() for sequence in sequences.values()]
    popular, neighbours = popularity(trained, size), ItemNeighbours(trained, size)
    vectors = np.asarray(generation.catalogue.vectors, np.float32)
    ranks = {name: np.zeros(len(users), np.int64) for name in ("recommender", "neighbours", "popularity")}
    for start in range(0, len(users), USERS_AT_ONCE):
        part = slice(start, start + USERS_AT_ONCE)
        wanted = _user_vectors(model.recommender, vectors, known[part]) @ vectors.T
        for place, (past, target) in enumerate(zip(known[part], targets[part], strict=True)):
            seen = past["rows"].tolist()
            scores = {"recommender": wanted[place], "neighbours": neighbours.scores(seen), "popularity": popular}
            for name, found in scores.items():
                ranks[name][start + place] = target_rank(found, target, seen)
    values: Values = {name: rank_values(found, experiment.evaluate.k) for name, found in ranks.items()}
    pairs = [("recommender", "neighbours"), ("recommender", "popularity")]
    every = {ALL: np.ones(len(users), dtype=bool)}
    compared = compare(values, every, pairs, experiment.evaluate.bootstrap, experiment.seed)
    figures = {
        "users": len(users),
        "left_out": len(sequences) - len(users),
        "systems": compared[ALL]["systems"],
        "slices": compared,
    }
    per_user = [
        pa.table({"system": [name] * len(users), "user_id": users, "rank": ranks[name], **metrics})
        for name, metrics in values.items()
    ]
    return figures, pa.concat_tables(per_user)


def _user_vectors(recommender: Recommender, vectors: np.ndarray, pasts: list[dict[str, np.ndarray]]) -> np.ndarray:
    """float32 [U, E] from the latest events of each past."""
    arrays = pad_history(pasts, recommender.events)
    items = torch.from_numpy(vectors[arrays["rows"]])
    with torch.inference_mode():
        types, gaps, mask = (torch.from_numpy(arrays[name]) for name in ("types", "gaps", "mask"))
        return recommender.user_vectors(items, types, gaps, mask).numpy()
