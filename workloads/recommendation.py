"""The recommendation half of `fuserank evaluate`: each user's last product, ranked over the whole catalogue.

Reads preprocess/events.parquet and a generation; returns figures. Systems: what is served (`recommended`, the blend),
the model's recommender M_R alone, plain item neighbours and popularity, the latter two counted over what training and
validation saw, as what is served does.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.config import Experiment
from fuserank.errors import FilterError
from fuserank.evaluation.groups import category_shares
from fuserank.evaluation.recommend import (
    ItemNeighbours,
    popularity,
    rank_values,
    target_rank,
    top_rows,
)
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import Values, compare
from fuserank.feedback.behaviour import count_turns
from fuserank.feedback.neighbours import Neighbours
from fuserank.feedback.questions import questions
from fuserank.feedback.sequences import training_sequences
from fuserank.models.fused import FusedModel
from fuserank.retrieval.blend import Blend, Blender, Wish
from fuserank.retrieval.expected import Expected
from fuserank.retrieval.generation import Generation
from fuserank.retrieval.pipeline import Retriever
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
    trained = [sequence["rows"].tolist() for sequence in training_sequences(events, ids, validated=True)]
    popular, neighbours = popularity(trained, size), ItemNeighbours(trained, size)
    vectors = np.asarray(generation.catalogue.vectors, np.float32)
    expected = Expected(model.recommender, generation.catalogue)
    counted = count_turns(trained, size)
    near = Neighbours.load(generation.model_folder, size)
    blender = Blender(Retriever(generation.catalogue), counted, near, expected, Blend.of(generation.manifest))
    systems = ("recommended", "recommender", "neighbours", "popularity")
    ranks = {name: np.zeros(len(users), np.int64) for name in systems}
    k = experiment.evaluate.k
    lists = {name: np.full((len(users), k), -1, np.int64) for name in ranks}
    for start in range(0, len(users), USERS_AT_ONCE):
        part = slice(start, start + USERS_AT_ONCE)
        wanted = expected.users(known[part])
        pasts = [past["rows"].tolist() for past in known[part]]
        wishes = [Wish(rows, user, exclude=np.unique(rows)) for rows, user in zip(pasts, wanted, strict=True)]
        best = blender.recommend(wishes, [k] * len(wishes))
        for place, (past, target) in enumerate(zip(known[part], targets[part], strict=True)):
            seen = past["rows"].tolist()
            scores = (served(best[place], size), expected.scores(wanted[place]), neighbours.scores(seen), popular)
            for name, found in zip(systems, scores, strict=True):
                ranks[name][start + place] = target_rank(found, target, seen)
                lists[name][start + place] = top_rows(found, k, seen)
    values: Values = {name: rank_values(found, k) for name, found in ranks.items()}
    pairs = [("recommended", "recommender"), ("recommended", "neighbours"), ("recommended", "popularity")]
    pairs += [("recommender", "neighbours"), ("recommender", "popularity")]
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


def served(found: tuple[np.ndarray, np.ndarray] | FilterError, size: int) -> np.ndarray:
    """float64 [N]: the scores of an answer's candidates; all else lies below them. Raises FilterError."""
    if isinstance(found, FilterError):
        raise found
    rows, score = found
    scores = np.full(size, -np.inf)
    scores[rows] = score
    return scores
