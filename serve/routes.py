"""HTTP: paths, status codes, the one shape of errors, the storefront. Requests are answered by a Gateway."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from fuserank import config
from serve import api, api_products, api_refine, exporter
from serve.admin import add_administration, add_generations
from serve.admin_policy import add_policies
from serve.answer import Answer
from serve.api_streams import add_streams
from serve.api_users import Erase, add_users
from serve.documentation import describe
from serve.envelope import Failure, RequestError
from serve.front import Front
from serve.gateway import Gateway
from serve.guard import Guard, needs
from serve.hangup import Hangup
from serve.keyring import Keyring
from serve.limits import BodyLimit
from serve.rates import Rates
from serve.refusal import refuse
from serve.routes_scoring import add_scoring
from serve.streams import Streams

log = logging.getLogger("fuserank.serve")
STATIC = Path(__file__).parent / "static"
PAGES = {"": "text/html", "store.css": "text/css", "store.js": "text/javascript"}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": api.ErrorAnswer, "description": text}
    for status, text in {
        400: "the body is not JSON, or the filter is malformed",
        413: "the body is too large",
        422: "a field is invalid, or a picture or sound cannot be read",
        429: "too many requests are waiting (Retry-After)",
        503: "a part of the service is restarting (Retry-After)",
        504: "the deadline passed",
    }.items()
}
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": api.ErrorAnswer, "description": "no such product"}}


def create_app(
    gateway: Gateway,
    max_body_bytes: int,
    version: str,
    guard: config.Guard | None = None,
    keyring: Keyring | None = None,
    index: Path | None = None,
    erase: Erase | None = None,
    streams: Streams | None = None,
) -> FastAPI:
    """The HTTP application of one gateway replica.

    Args:
        keyring: the keys to ask for; None: no keys are asked for, and there is no administration.
        index: the folder whose generations an administrator may activate.
        erase: what erases a user; streams: recommendations as they change; None: there is no such endpoint.
    """
    guard = guard or config.Guard()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.close()
        if keyring is not None:
            keyring.close()

    app = FastAPI(
        title="fuserank",
        version=version,
        summary="Multimodal search and recommendation",
        lifespan=lifespan,
        responses={500: {"model": api.ErrorAnswer, "description": "a fault of the server"}},
    )
    app.add_middleware(Hangup)  # the innermost; the last one added is the outermost
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_middleware(Guard, router=app, keyring=keyring, rates=Rates(guard.burst), rate=guard.requests_per_second)
    if guard.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=guard.origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(Front)
    _handle_errors(app)
    _add_search(app, gateway)
    add_scoring(app, gateway.scoring)
    _add_products(app, gateway)
    _add_operations(app, gateway)
    if streams is not None:
        add_streams(app, streams, {status: ERRORS[status] for status in (422, 429, 503, 504)})
    if erase is not None:
        add_users(app, erase, {status: ERRORS[status] for status in (422, 503)})
    if guard.administration and keyring is not None:
        add_administration(app, keyring.database)
        add_policies(app, keyring.database)
        if index is not None:
            add_generations(app, keyring.database, index)
    _add_storefront(app)
    describe(app)
    return app


def _add_search(app: FastAPI, gateway: Gateway) -> None:
    @app.post("/v1/search", response_model=api.Answer, responses=ERRORS, tags=["search"])
    @needs("search")
    async def search(request: api.SearchRequest) -> Answer:
        """Search by words, picture, sound or any mixture."""
        return Answer(await gateway.search(request))

    @app.get("/v1/suggest", response_model=api_refine.Suggestions, responses=ERRORS, tags=["search"])
    @needs("search")
    async def suggest(
        q: Annotated[str, Query(min_length=1, max_length=200)], limit: Annotated[int, Query(ge=1, le=20)] = 8
    ) -> Answer:
        """Complete what somebody types: how titles begin, brands, categories; the most frequent first."""
        return Answer(await gateway.suggest(q, limit))

    @app.post("/v1/recommend", response_model=api.Recommendation, responses=ERRORS, tags=["search"])
    @needs("search")
    async def recommend(request: api.RecommendRequest) -> Answer:
        """Recommend products to a user, or after the products given."""
        return Answer(await gateway.recommend(request))

    @app.post("/v1/events", response_model=api.EventsAnswer, responses=ERRORS, tags=["feedback"])
    @needs("search")
    async def events(events: api.Events) -> Answer:
        """Store what users did. Answers once the accepted ones are durable; an event_id sent twice counts once."""
        return Answer(await gateway.events(events))


def _add_products(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/products/{product_id:path}/similar",
        response_model=api.Answer,
        responses=ERRORS | MISSING,
        tags=["products"],
    )
    @needs("search")
    async def similar(product_id: str, limit: Annotated[int, Query(ge=1)] = 10) -> Answer:
        """Products like this one."""
        return Answer(await gateway.similar(product_id, limit))

    answers = {"response_model": api_products.ChangesAnswer, "responses": ERRORS, "tags": ["products"]}

    @app.post("/v1/products", **answers)
    @needs("write")
    async def upsert(products: api_products.Products) -> Answer:
        """Put products in place, whole. Answers once they are durable; searches show them within a second."""
        return Answer(await gateway.change("upsert", products))

    @app.patch("/v1/products", **answers)
    @needs("write")
    async def patch(products: api_products.Products) -> Answer:
        """Change fields of products; null takes one away. What no modality is made of costs no encoding."""
        return Answer(await gateway.change("patch", products))

    @app.post("/v1/products/delete", **answers)
    @needs("write")
    async def delete(deletion: api_products.Deletion) -> Answer:
        """Take products away."""
        return Answer(await gateway.change("delete", deletion.ids))

    @app.get("/v1/products/{product_id:path}/image", response_class=FileResponse, responses=MISSING, tags=["products"])
    @needs("search")
    async def image(product_id: str) -> FileResponse:
        """The main picture."""
        file, kind = gateway.picture(product_id)
        return FileResponse(file, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/v1/products/{product_id:path}", response_model=api.Product, responses=MISSING, tags=["products"])
    @needs("search")
    async def product(product_id: str) -> Answer:
        """One product, whole."""
        return Answer(gateway.product(product_id))


def _add_operations(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/health/live", response_model=api.Health, tags=["operations"])
    @needs(None)
    async def live() -> dict[str, str]:
        """The gateway runs."""
        return {"status": "live"}

    @app.get("/v1/health/ready", response_model=api.Health, responses={503: ERRORS[503]}, tags=["operations"])
    @needs(None)
    async def ready() -> dict[str, str]:
        """Every deployment answers."""
        await gateway.ready()
        return {"status": "ready"}

    @app.get("/v1/generations", response_model=api.Generations, tags=["operations"])
    @needs("search")
    async def generations() -> dict[str, Any]:
        """The generations on disk; the active one answers."""
        return {"generations": await gateway.generations()}

    @app.get("/metrics", response_class=PlainTextResponse, responses={503: ERRORS[503]}, tags=["operations"])
    @needs("admin")
    async def metrics() -> PlainTextResponse:
        """Metrics of all deployments on all nodes, for Prometheus, as Ray's exporters hold them."""
        try:
            page = await asyncio.to_thread(exporter.gather)
        except Exception as error:
            log.warning("the metrics cannot be read", exc_info=error)
            failure = Failure(503, "no_metrics", "Ray's metrics exporter does not answer.", "Try again.")
            raise RequestError(failure, 5) from error
        return PlainTextResponse(page, media_type="text/plain; version=0.0.4")


def _add_storefront(app: FastAPI) -> None:
    policy = "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'"

    @app.get("/", include_in_schema=False)
    @app.get("/{page}", include_in_schema=False)
    @needs(None)
    async def storefront(page: str = "") -> Response:
        if page not in PAGES:
            raise HTTPException(404)
        file = STATIC / (page or "index.html")
        return FileResponse(file, media_type=PAGES[page], headers={"Content-Security-Policy": policy})


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Answer:
        return refuse(error.failure, {"Retry-After": str(error.retry_after)} if error.retry_after else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Answer:
        errors = error.errors()
        if any(item["type"] == "json_invalid" for item in errors):
            return refuse(Failure(400, "bad_json", "The body is not valid JSON.", "Send application/json."))
        return refuse(Failure(422, "bad_request", api.reason(errors), "See /docs for the fields and their limits."))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Answer:
        words = {404: f"There is no {request.url.path[:200]}.", 405: f"{request.method} is not allowed here."}
        message = words.get(error.status_code, str(error.detail))
        failure = Failure(error.status_code, CODES.get(error.status_code, "bad_request"), message, "See /docs.")
        return refuse(failure, error.headers)
