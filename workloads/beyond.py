"""What search and recommendation answer beyond their accuracy, and which products search finds. Part of `evaluate`.

Reads preprocess/ (events, judgments) for what training has seen of each product. Q queries or users · N products ·
R ranks · E width of a fused vector.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fuserank.config import Evaluate, Experiment
from fuserank.evaluation.groups import Groups, category_shares, product_groups, recall_of
from fuserank.evaluation.intervals import interval, paired_difference, rounded, seed_of
from fuserank.evaluation.lists import calibration_at_k, coverage_at_k, diversity_at_k, novelty_at_k
from fuserank.evaluation.recommend import popularity
from fuserank.feedback.sequences import training_sequences
from fuserank.records.splits import EVALUATION
from fuserank.retrieval.catalogue import Catalogue

RIVAL = "bm25"


@dataclass(frozen=True)
class Seen:
    """What training has seen of the catalogue."""

    counts: np.ndarray | None  # [N] users who turned to each product; None without events
    known: np.ndarray  # bool [N]: an event or a judgment of training is about it


def seen_in_training(preprocess: Path, product_ids: list[str]) -> Seen:
    """From events.parquet, and judgments of queries that are not held out."""
    counts, file = None, preprocess / "events.parquet"
    if file.is_file():
        histories = [sequence["rows"].tolist() for sequence in training_sequences(pq.read_table(file), product_ids)]
        counts = popularity(histories, len(product_ids)) if histories else None
    queries = pq.read_table(preprocess / "queries.parquet", columns=["query_id", "split"]).to_pylist()
    held = {query["query_id"] for query in queries if query["split"] == EVALUATION}
    judged = {
        row["product_id"]
        for row in pq.read_table(preprocess / "judgments.parquet").to_pylist()
        if row["grade"] > 0 and row["query_id"] not in held
    }
    known = np.array([product in judged for product in product_ids], dtype=bool)
    return Seen(counts, known if counts is None else known | (counts > 0))


def search_figures(
    experiment: Experiment,
    preprocess: Path,
    catalogue: Catalogue,
    modalities: tuple[str, ...],
    orders: dict[str, np.ndarray],
    grades: np.ndarray,
) -> dict[str, dict]:
    """ "beyond" and "groups" of one variant: `list_figures` and `group_figures`. orders [Q, R], grades [Q, N]."""
    settings, seed, shares = experiment.evaluate, experiment.seed, category_shares(catalogue.products)
    seen, split = seen_in_training(preprocess, catalogue.ids), experiment.records.split.by == "product"
    groups = product_groups(catalogue.products, catalogue.mask, modalities, seen.counts, None if split else seen.known)
    vectors = np.asarray(catalogue.vectors, np.float32)
    beyond = list_figures(orders, vectors, shares, grades @ shares, seen.counts, settings, seed)
    return {"beyond": beyond, "groups": group_figures(orders, grades, groups, settings, seed)}


def list_figures(
    orders: dict[str, np.ndarray],
    vectors: np.ndarray,
    shares: np.ndarray,
    wanted: np.ndarray,
    counts: np.ndarray | None,
    settings: Evaluate,
    seed: int,
) -> dict[str, dict]:
    """System → "coverage" (a share) and the intervals of "novelty", "diversity" and "calibration" of its first k.

    Args:
        orders: int64 [Q, R]; vectors: [N, E] fused; counts: [N] of training, None leaves novelty out.
        shares: [N, C] categories of the products; wanted: [Q, C] those of the relevant products, of a user's past.
    """
    found = {}
    for system, order in orders.items():
        values = {"diversity": diversity_at_k(order, vectors, settings.k)}
        if counts is not None:
            values["novelty"] = novelty_at_k(order, counts, settings.k)
        if shares.any():
            values["calibration"] = calibration_at_k(order, wanted, shares, settings.k)
        figures = {
            name: interval(per_query, settings.bootstrap, seed=seed_of(seed, name)).as_dict()
            for name, per_query in values.items()
        }
        found[system] = {"coverage": rounded(coverage_at_k(order, len(vectors), settings.k))} | figures
    return found


def group_figures(
    orders: dict[str, np.ndarray], grades: np.ndarray, groups: Groups, settings: Evaluate, seed: int
) -> dict[str, dict]:
    """Kind of group → group → {"products", "systems": {system: interval}, "difference": of served − BM25, or None}.

    The figure is recall@recall_k of the group's relevant products.
    """
    found: dict[str, dict] = {}
    for what, members in groups.items():
        recalls = {
            system: recall_of(order, grades, members, settings.recall_k, settings.relevant)
            for system, order in orders.items()
        }
        found[what] = {}
        for group in next(iter(recalls.values())):
            drawn = seed_of(seed, what, group)
            difference = paired_difference(
                recalls["served"][group], recalls[RIVAL][group], settings.bootstrap, seed=drawn
            )
            found[what][group] = {
                "products": int(members[group].sum()),
                "systems": {
                    system: interval(recall[group], settings.bootstrap, seed=drawn).as_dict()
                    for system, recall in recalls.items()
                },
                "difference": difference.as_dict() | {"excludes_zero": difference.excludes_zero},
            }
    return found
