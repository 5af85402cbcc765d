"""The sessions' half of `fuserank evaluate`: later searches, the page that was shown put into the order of each system.

Systems: `retriever` (its own order), `reranked` without the user's past, `personal` with it. A session counts by
nDCG@k of its page, clicked products being relevant; a user's sessions are one observation, their mean, because they
depend on each other. Reads preprocess/ and a generation; returns figures. U users · K products of a page.
"""

from pathlib import Path

import numpy as np
import torch

from fuserank.config import Experiment
from fuserank.evaluation.metrics import ndcg_at_k
from fuserank.evaluation.slices import ALL
from fuserank.evaluation.systems import compare
from fuserank.feedback.behaviour import Behaviour
from fuserank.feedback.search_sessions import Pasts
from fuserank.models.fused import FusedModel
from fuserank.models.reranker import Reranker
from fuserank.retrieval.pipeline import Retriever
from fuserank.retrieval.rerank_inputs import rerank
from workloads.search_sessions import held_out_queries, open_log, session_inputs

SYSTEMS = ("retriever", "reranked", "personal")
PAIRS = [("personal", "reranked"), ("personal", "retriever"), ("reranked", "retriever")]
HELD_OUT = "held-out queries"


def evaluate_sessions(
    experiment: Experiment,
    preprocess: Path,
    model: FusedModel,
    reranker: Reranker,
    behaviour: Behaviour,
    retriever: Retriever,
) -> dict | None:
    """Figures as report.build takes them; None where no later session has a click.

    Args:
        behaviour: as of the cut, which the generation holds.
    """
    log = open_log(preprocess, retriever.catalogue.ids, experiment.index.later_sessions)
    sessions = [] if log is None else log.later()
    if log is None or not sessions:
        return None
    pasts, k = Pasts(log.events, log.ids), experiment.evaluate.k
    common = (preprocess, model, retriever, sessions, pasts, behaviour, experiment.index.candidates)
    orders: dict[str, list[np.ndarray]] = {system: [] for system in SYSTEMS}
    asked = []
    for personal in (False, True):
        for session, rows, inputs in session_inputs(*common, torch.device("cpu"), personal):
            shown = np.isin(rows, list(session.shown))
            clicked = np.isin(rows[shown], list(session.clicked)).astype(np.float64)
            scores = {"personal" if personal else "reranked": rerank(reranker, inputs)}
            if not personal:
                scores["retriever"] = inputs.features[:, 0]
                asked.append(session)
            for system, values in scores.items():
                ranked = clicked[np.argsort(-values[shown], kind="stable")]
                orders[system].append(ndcg_at_k(ranked[None], clicked[None], k))
    users, group = np.unique([s.user_id or s.request_id for s in asked], return_inverse=True)
    per_session = {system: np.concatenate(values) for system, values in orders.items()}
    held = held_out_queries(preprocess)
    slices = {ALL: np.ones(len(asked), bool), HELD_OUT: np.array([s.query_id in held for s in asked])}
    found = {}
    for name, chosen in slices.items():
        values = {
            system: {f"ndcg@{k}": _by_user(v[chosen], group[chosen], len(users))} for system, v in per_session.items()
        }
        every = {ALL: np.ones(len(users), bool)}
        found[name] = compare(values, every, PAIRS, experiment.evaluate.bootstrap, experiment.seed)[ALL]
    return {"sessions": len(asked), "users": len(users), "systems": found[ALL]["systems"], "slices": found}


def _by_user(values: np.ndarray, group: np.ndarray, users: int) -> np.ndarray:
    """Mean of each user's sessions, float64 [U]; NaN without one."""
    count = np.bincount(group, minlength=users)
    return np.where(count > 0, np.bincount(group, values, users) / np.maximum(count, 1), np.nan)
