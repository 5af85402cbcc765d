"""What a search may ask of its result set as a whole: counts, another order, groups. Reads the retriever's catalogue.

The result set is what vector search and word search find, each to a fixed depth whatever page is asked for, so that all
pages of an order are cut from one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fuserank.retrieval.arrange import group_codes, sorted_places
from fuserank.retrieval.facets import facet, refuse_unknown, relaxed
from fuserank.retrieval.pipeline import Candidates, Retriever, SearchRequest
from serve.messages import Ask, Overview


def searches(ask: Ask, request: SearchRequest, depth: int) -> list[SearchRequest]:
    """The request as deep as it has to look, then one for each facet that another filter counts (`_freed`). All of them
    go into one retrieval."""
    if not _refined(ask):
        return [request]
    if ask.sort or ask.group_by:
        heads = request.q_heads if ask.explain or not ask.sort else None  # nothing of them is read otherwise
        first = dataclasses.replace(request, candidates=depth, q_heads=heads)
    else:
        first = dataclasses.replace(request, deep=depth)
    bare = dataclasses.replace(request, candidates=depth, q_heads=None)
    return [first, *(dataclasses.replace(bare, filter=relaxed(ask.filter, field)) for field in _freed(ask))]


def overview(
    ask: Ask, request: SearchRequest, found: Candidates, freed: Sequence[Candidates], retriever: Retriever
) -> Overview | None:
    """The result set as a whole; None if nobody asks.

    Args:
        request, found: the first of `searches` and what it found.
        freed: what the others found.

    Raises:
        InputError: there is no such facet. FilterError: see pipeline.Retriever.allowed.
    """
    if not _refined(ask):
        return None
    fields = retriever.catalogue.filters
    refuse_unknown(ask.facets, fields)
    others = dict(zip(_freed(ask), freed, strict=True))
    counted = {field: facet(fields.values(field, others.get(field, found).every)) for field in ask.facets}
    total = len(found.every)
    return Overview(total, total < retriever.matching(request), counted)


def arranged(ask: Ask, found: Candidates, retriever: Retriever) -> tuple[Candidates, np.ndarray | None]:
    """The candidates in the order asked for, and their groups, if those are asked for. Raises FilterError."""
    fields = retriever.catalogue.filters
    if ask.sort:
        order = sorted_places(ask.sort, fields, found.rows, found.score)
        found = found.take(order if ask.group_by else order[: ask.depth])
    return found, group_codes(ask.group_by, fields, found.rows) if ask.group_by else None


def _refined(ask: Ask) -> bool:
    return bool(ask.facets or ask.sort or ask.group_by)


def _freed(ask: Ask) -> list[str]:
    """Facets whose own conditions do not narrow their counts."""
    return [field for field in ask.facets if relaxed(ask.filter, field) != ask.filter]
