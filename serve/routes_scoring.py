"""HTTP of scoring and embedding without a search; all else of HTTP is in routes.py."""

from typing import Any

from fastapi import FastAPI

from serve import api, api_scoring
from serve.answer import Answer
from serve.guard import needs
from serve.scoring import Scoring

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": api.ErrorAnswer, "description": text}
    for status, text in {
        400: "the body is not JSON",
        413: "the body, a picture or a sound is too large",
        422: "a field is invalid, or a picture or sound cannot be read",
        429: "too many requests are waiting (Retry-After)",
        503: "a part of the service is restarting (Retry-After)",
        504: "the deadline passed",
    }.items()
}


def add_scoring(app: FastAPI, scoring: Scoring) -> None:
    """Add the endpoints."""

    @app.post("/v1/rank", response_model=api_scoring.RankAnswer, responses=ERRORS, tags=["scoring"])
    @needs("search")
    async def rank(request: api_scoring.RankRequest) -> Answer:
        """Score and order the products given, as a search would, by model, words and reranker."""
        return Answer(await scoring.rank(request))

    @app.post("/v1/embed", response_model=api_scoring.EmbedAnswer, responses=ERRORS, tags=["scoring"])
    @needs("search")
    async def embed(request: api_scoring.EmbedRequest) -> Answer:
        """Queries or products as vectors, whose dot products are the fused scores of a search."""
        return Answer(await scoring.embed(request))
