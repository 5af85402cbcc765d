"""The shop's search sessions, for `index` to fit the reranker on and for `evaluate` to judge it by.

Reads preprocess/ (events, queries and their features); writes nothing. The log is cut by time: behaviour is counted in
the first half of the sessions' time when the reranker is fitted on those after it, and in all that is before the cut
when it serves; sessions after the cut are for evaluation alone. So no click is ever part of a feature that predicts it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuserank.features.table import FeatureTable
from fuserank.feedback.behaviour import Behaviour, count_behaviour
from fuserank.feedback.search_sessions import Pasts, Session, search_sessions
from fuserank.feedback.sequences import has_splits, of_splits
from fuserank.models.fused import FusedModel
from fuserank.records.schema import MODALITIES
from fuserank.records.splits import EVALUATION, TRAINING
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import RerankInputs, rerank_inputs
from fuserank.training.encode import encode_table


@dataclass(frozen=True)
class Log:
    """The sessions and when they end up where."""

    events: pa.Table  # what may be learnt from, and for evaluation what came later
    ids: list[str]
    sessions: list[Session]
    half: int | None  # ms; None: no session
    cut: int | None

    def fitting(self, held_out: set[str]) -> list[Session]:
        """Sessions to fit on: between half and cut, none of them for a held-out query."""
        if self.half is None or self.cut is None:
            return []
        return [s for s in self.sessions if self.half <= s.start < self.cut and s.query_id not in held_out]

    def later(self) -> list[Session]:
        """Sessions from the cut on."""
        return [s for s in self.sessions if self.cut is not None and s.start >= self.cut]

    def behaviour(self, before: int | None) -> Behaviour:
        """Counts before a moment; of all events where there is no session to hold out."""
        return count_behaviour(self.events, self.ids, before)


def open_log(preprocess: Path, product_ids: list[str], later: float) -> Log | None:
    """The log, cut so that `later` of the sessions, the latest, come after; None without events."""
    file = preprocess / "events.parquet"
    if not file.is_file():
        return None
    events = pq.read_table(file)
    if has_splits(events):
        events = of_splits(events, [TRAINING])
    sessions = search_sessions(events, product_ids)
    if len(sessions) < 2:
        return Log(events, product_ids, sessions, None, None)
    starts = [s.start for s in sessions]
    cut = starts[min(len(starts) - 1, int(len(starts) * (1 - later)))]
    return Log(events, product_ids, sessions, starts[int(len(starts) * (1 - later) / 2)], cut)


def held_out_queries(preprocess: Path) -> set[str]:
    """Ids of the evaluation split's queries."""
    rows = pq.read_table(preprocess / "queries.parquet", columns=["query_id", "split"]).to_pylist()
    return {row["query_id"] for row in rows if row["split"] == EVALUATION}


def session_inputs(
    preprocess: Path,
    model: FusedModel,
    retriever: Retriever,
    sessions: list[Session],
    pasts: Pasts,
    behaviour: Behaviour,
    candidates: int,
    device: torch.device,
    personal: bool = True,
) -> Iterator[tuple[Session, np.ndarray, RerankInputs]]:
    """Each session with the rows that the retriever finds or that were shown, as the reranker sees them.

    Args:
        personal: whether it sees the user's past.
    """
    table = pq.read_table(preprocess / "queries.parquet", columns=["query_id", "text"]).to_pylist()
    text = {row["query_id"]: row["text"] for row in table}
    sessions = [session for session in sessions if session.query_id in text]
    asked = list(dict.fromkeys(session.query_id for session in sessions))
    if not asked:
        return
    features = FeatureTable.open(preprocess / "query_features.parquet")
    columns = [MODALITIES.index(modality) for modality in model.modalities]
    vectors, mask = encode_table(model, features, features.rows(asked), columns, "query", device)
    with torch.inference_mode():
        fused, heads = (t.float().cpu().numpy() for t in model.search_vectors(vectors.to(device), mask.to(device)))
    requests = {
        query: SearchRequest(text[query] or None, fused[place], heads[place], candidates=candidates)
        for place, query in enumerate(asked)
    }
    found = dict(zip(asked, retriever.search(list(requests.values())), strict=True))
    for session in sessions:
        request = requests[session.query_id]
        rows = np.union1d(found[session.query_id].rows, np.array(list(session.shown), np.int64))
        scored = retriever.score(request, rows)
        recent = pasts.before(session.user_id, session.start) if personal else []
        assert request.q_heads is not None
        yield session, scored.rows, rerank_inputs(scored, request.q_heads, retriever.catalogue, behaviour, recent)
