"""Scores products that a request names or brings along, as a search would score them. Reads the retriever's catalogue.

A search weighs words by the best word score there is for the query; so that both come out the same, the product that
has it is scored along and left out of the answer.
"""

import dataclasses
from collections.abc import Sequence
from typing import cast

import numpy as np

from fuserank.feedback.behaviour import Behaviour
from fuserank.retrieval.delta import LiveCatalogue
from fuserank.retrieval.guests import Guest, GuestCatalogue
from fuserank.retrieval.pipeline import Candidates, Retriever, SearchRequest
from fuserank.retrieval.rerank_inputs import RerankInputs, rerank_inputs
from serve.messages import Ask


def scored(
    ask: Ask,
    request: SearchRequest,
    heads: np.ndarray,
    recent: Sequence[int],
    retriever: Retriever,
    behaviour: Behaviour,
) -> tuple[np.ndarray, Candidates, RerankInputs | None]:
    """Where each product stands in `ask.given`, int64 [K], best first; the products; what the reranker reads of them.

    Ids that the catalogue does not have are left out, and so is what was given before.

    Args:
        heads: float32 [M, D], the query as each modality of a product is asked.
        recent: rows of the user's turns, oldest first.
    """
    catalogue = retriever.catalogue
    guests = [one for one in ask.given if isinstance(one, Guest)]
    beside = GuestCatalogue(catalogue, guests)
    places: dict[int, int] = {}  # row → place
    guest = catalogue.size
    for place, one in enumerate(ask.given):
        if isinstance(one, Guest):
            places[guest] = place
            guest += 1
        elif (row := catalogue.rows.get(one)) is not None and catalogue.filters.present[row]:
            places.setdefault(row, place)
    rows = list(places)
    best = int(catalogue.lexical_index.search([request.text], 1)[0][0, 0]) if request.text else -1
    if best >= 0 and best not in places:
        rows.append(best)
    scoring = Retriever(cast(LiveCatalogue, beside), retriever.hybrid)  # it has all that `score` reads
    found = scoring.score(request, np.array(rows, np.int64))
    seen = rerank_inputs(found, heads, beside, behaviour, recent) if ask.rerank and len(rows) else None
    kept = np.array([i for i, row in enumerate(found.rows.tolist()) if row in places], np.int64)
    found = found.take(kept)
    order = np.array([places[row] for row in found.rows.tolist()], np.int64)
    return order, found, None if seen is None else _taken(seen, kept)


def _taken(seen: RerankInputs, kept: np.ndarray) -> RerankInputs:
    parts = {name: getattr(seen, name)[kept] for name in ("features", "fused", "products", "present")}
    return dataclasses.replace(seen, **parts)
