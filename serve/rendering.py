"""What an answer shows: hits with their scores, explanations, groups and marks, and what is said of the result set.
Reads a generation's documents."""

from typing import Any

from fuserank.models.chances import HEADS
from fuserank.retrieval.analysis import terms
from fuserank.retrieval.highlight import marked, snippet
from serve.live_documents import LiveDocuments
from serve.messages import Ask, Details, Found, Ranked

MEMBERS = 20  # products of a group that are named


def render(documents: LiveDocuments, ask: Ask, ranked: Ranked, offset: int, highlight: bool) -> dict[str, Any]:
    """The parts of an answer that tell what was found: `hits`, and what else was asked for."""
    found = ranked.found
    if found.vector is not None:
        return {"vector": found.vector.tolist()}
    if ask.given:
        return {"hits": _scored(ask, ranked)}
    chosen = ranked.order[offset:].tolist()
    rows = found.rows[chosen].tolist()
    chances = ranked.slate.chosen.chances if ranked.slate is not None else None
    hits = []
    shown = zip(documents.hits(rows), chosen, ranked.scores[offset:].tolist(), strict=True)
    for rank, (hit, i, score) in enumerate(shown, offset):
        if hit is None:  # deleted since it was found
            continue
        hits.append(hit)
        hit["score"] = score
        if found.details is not None:
            hit["explanation"] = _explanation(found, found.details, i, score) | {"rank_after": rank}
        if chances is not None:
            hit["chances"] = dict(zip(HEADS, chances[rank - offset].tolist(), strict=True))
        if ranked.groups is not None:
            members = documents.known(found.rows[ranked.groups[rank]].tolist())
            hit["group"] = {"size": len(members), "product_ids": members[:MEMBERS]}
    if highlight:
        _highlight(documents, hits, _searched(ask, found))
    answer: dict[str, Any] = {"hits": hits}
    if found.corrected is not None:
        answer["corrected"] = found.corrected
    if found.overview is not None:
        answer["total"] = found.overview.total
        answer["total_relation"] = "gte" if found.overview.cut else "eq"
        if ask.facets:
            answer["facets"] = found.overview.facets
    if ranked.group_count is not None:
        answer["total_groups"] = ranked.group_count
    return answer


def _scored(ask: Ask, ranked: Ranked) -> list[dict[str, Any]]:
    places = ranked.found.rows[ranked.order].tolist()
    named = [one if isinstance(one, str) else one.row["product_id"] for one in (ask.given[place] for place in places)]
    scored = zip(named, ranked.scores.tolist(), places, strict=True)
    return [{"product_id": product_id, "score": score, "index": place} for product_id, score, place in scored]


def _searched(ask: Ask, found: Found) -> str:
    """What was searched by words."""
    return (found.corrected or ask.media.get("text") or "") if ask.weights.get("text", 1) > 0 else ""


def _highlight(documents: LiveDocuments, hits: list[dict[str, Any]], text: str) -> None:
    words = set(terms(text))
    for hit in hits:
        marks = {
            "title": marked(hit["title"] or "", words),
            "description": snippet(documents.description(hit["product_id"]) or "", words),
        }
        hit["highlights"] = {name: mark for name, mark in marks.items() if mark is not None}


def _explanation(found: Found, details: Details, i: int, score: float) -> dict[str, Any]:
    fused, retrieved = float(details.fused[i]), float(found.score[i])
    parts = {m: float(value) for m, value in zip(found.modalities, details.contributions[i], strict=True) if value != 0}
    scores = zip(found.modalities, details.modality_scores[i], strict=True)
    return {
        "contributions": parts
        | {"words": retrieved - fused, "reranking": score - sum(parts.values()) - retrieved + fused},
        "fused_score": fused,
        "lexical_score": float(details.lexical[i]),
        "modality_scores": {m: float(value) for m, value in scores if value == value},
        "rank_before": i,
    }
