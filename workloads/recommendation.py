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
from fuserank.evaluation.groups import category_shares
from fuserank.evaluation.recommend import (
    ItemNeighbours,
    hold_out,
    popularity,
    rank_values,
    target_rank,
    top_rows,
)
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import Values, compare
from fuserank.feedback.sequences import (
    HELD_OUT,
    has_splits,
    of_splits,
    pad_history,
    training_sequences,
    user_sequences,
)
from fuserank.models.fused import FusedModel
from fuserank.models.recommender import Recommender
from fuserank.records.splits import EVALUATION, TRAINING, VALIDATION
from fuserank.retrieval.generation import Generation
from workloads.beyond import list_figures

USERS_AT_ONCE = 256


def evaluate_recommendation(
    experiment: Experiment, preprocess: Path, generation: Generation, model: FusedModel
) -> tuple[dict | None, pa.Table | None]:
    """Figures as report.build takes them and one row a user and system; None, None without a recommender or events."""
    file = preprocess / "events.parquet"
    if model.recommender is None or not file.is_file():
        return None, None
    events, ids = pq.read_table(file), generation.catalogue.ids
    asked, others = questions(events, ids)
    if not asked:
        return None, None
    users = list(asked)
    known, targets = [asked[user][0] for user in users], [asked[user][1] for user in users]
    size, seed = generation.catalogue.size, experiment.seed
    trained = [sequence["rows"].tolist() for sequence in training_sequences(events, ids)]
    popular, neighbours = popularity(trained, size), ItemNeighbours(trained, size)
    vectors = np.asarray(generation.catalogue.vectors, np.float32)
    ranks = {name: np.zeros(len(users), np.int64) for name in ("recommender", "neighbours", "popularity")}
    k = experiment.evaluate.k
    lists = {name: np.full((len(users), k), -1, np.int64) for name in ranks}
    for start in range(0, len(users), USERS_AT_ONCE):
        part = slice(start, start + USERS_AT_ONCE)
        wanted = _user_vectors(model.recommender, vectors, known[part]) @ vectors.T
        for place, (past, target) in enumerate(zip(known[part], targets[part], strict=True)):
            seen = past["rows"].tolist()
            scores = {"recommender": wanted[place], "neighbours": neighbours.scores(seen), "popularity": popular}
            for name, found in scores.items():
                ranks[name][start + place] = target_rank(found, target, seen)
                lists[name][start + place] = top_rows(found, k, seen)
    values: Values = {name: rank_values(found, k) for name, found in ranks.items()}
    pairs = [("recommender", "neighbours"), ("recommender", "popularity")]
    every = {ALL: np.ones(len(users), dtype=bool)}
    compared = compare(values, every, pairs, experiment.evaluate.bootstrap, seed)
    shares = category_shares(generation.catalogue.products)
    wanted = [shares[past["rows"]].sum(axis=0) for past in known]
    figures = {
        "users": len(users),
        "left_out": others,
        "systems": compared[ALL]["systems"],
        "slices": compared,
        "beyond": list_figures(lists, vectors, shares, np.array(wanted), popular, experiment.evaluate, seed),
    }
    per_user = [
        pa.table({"system": [name] * len(users), "user_id": users, "rank": ranks[name], **metrics})
        for name, metrics in values.items()
    ]
    return figures, pa.concat_tables(per_user)


def questions(events: pa.Table, product_ids: list[str]) -> tuple[dict[str, tuple[dict[str, np.ndarray], int]], int]:
    """What is asked of each user: their past, as `user_sequences` has it, and the row of the product that followed.

    Split by time: the past is all before the evaluation events, the answer their first new product. Split by user: of
    users that training never saw, the last product. Else each user's last product.

    Returns:
        user → past and answer; and how many users have no fair answer.
    """
    if not has_splits(events):
        return _last(user_sequences(events, product_ids), HELD_OUT)
    later = user_sequences(of_splits(events, [EVALUATION]), product_ids)
    earlier = user_sequences(of_splits(events, [TRAINING, VALIDATION]), product_ids)
    if not later.keys() & earlier.keys():  # by user
        return _last(later, None)
    found = {}
    for user, sequence in later.items():
        seen = set(earlier[user]["rows"].tolist()) if user in earlier else set()
        new = [row for row in sequence["rows"].tolist() if row not in seen]
        if seen and new:
            found[user] = (earlier[user], new[0])
    return found, len(later) - len(found)


def _last(
    sequences: dict[str, dict[str, np.ndarray]], kept_back: int | None
) -> tuple[dict[str, tuple[dict[str, np.ndarray], int]], int]:
    """Each user's last product; kept_back: how many last events training has not seen, None for all."""
    found = {}
    for user, sequence in sequences.items():
        rows = sequence["rows"].tolist()
        cut = hold_out(rows, len(rows) if kept_back is None else kept_back)
        if cut is not None:
            found[user] = ({name: array[:cut] for name, array in sequence.items()}, rows[-1])
    return found, len(sequences) - len(found)


def _user_vectors(recommender: Recommender, vectors: np.ndarray, pasts: list[dict[str, np.ndarray]]) -> np.ndarray:
    """float32 [U, E] from the latest events of each past."""
    arrays = pad_history(pasts, recommender.events)
    items = torch.from_numpy(vectors[arrays["rows"]])
    with torch.inference_mode():
        types, gaps, mask = (torch.from_numpy(arrays[name]) for name in ("types", "gaps", "mask"))
        return recommender.user_vectors(items, types, gaps, mask).numpy()
