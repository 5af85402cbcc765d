"""HTTP: paths, status codes, the one shape of errors, the storefront. Requests are answered by a Gateway."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from serve import api, api_products
from serve.envelope import INTERNAL, Failure, RequestError
from serve.gateway import Gateway
from serve.limits import BodyLimit

log = logging.getLogger("fuserank.serve")
STATIC = Path(__file__).parent / "static"
PAGES = {"": "text/html", "store.css": "text/css", "store.js": "text/javascript"}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
HEADERS = {"X-Content-Type-Options": "nosniff"}
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


def create_app(gateway: Gateway, max_body_bytes: int, version: str) -> FastAPI:
    """The HTTP application of one gateway replica."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()

    app = FastAPI(
        title="fuserank",
        version=version,
        summary="Multimodal search and recommendation",
        lifespan=lifespan,
        responses={500: {"model": api.ErrorAnswer, "description": "a fault of the server"}},
    )
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    _handle_errors(app)
    _add_search(app, gateway)
    _add_products(app, gateway)
    _add_operations(app, gateway)
    _add_storefront(app)
    return app


def _add_search(app: FastAPI, gateway: Gateway) -> None:
    @app.post("/v1/search", response_model=api.Answer, responses=ERRORS, tags=["search"])
    async def search(request: api.SearchRequest) -> JSONResponse:
        """Search by words, picture, sound or any mixture."""
        return JSONResponse(await gateway.search(request), headers=HEADERS)

    @app.post("/v1/recommend", response_model=api.Recommendation, responses=ERRORS, tags=["search"])
    async def recommend(request: api.RecommendRequest) -> JSONResponse:
        """Recommend products to a user, or after the products given."""
        return JSONResponse(await gateway.recommend(request), headers=HEADERS)

    @app.post("/v1/events", response_model=api.EventsAnswer, responses=ERRORS, tags=["feedback"])
    async def events(events: api.Events) -> JSONResponse:
        """Store what users did. Answers once the accepted ones are durable; an event_id sent twice counts once."""
        return JSONResponse(await gateway.events(events), headers=HEADERS)


def _add_products(app: FastAPI, gateway: Gateway) -> None:
    @app.get(
        "/v1/products/{product_id:path}/similar",
        response_model=api.Answer,
        responses=ERRORS | MISSING,
        tags=["products"],
    )
    async def similar(product_id: str, limit: Annotated[int, Query(ge=1)] = 10) -> JSONResponse:
        """Products like this one."""
        return JSONResponse(await gateway.similar(product_id, limit), headers=HEADERS)

    answers = {"response_model": api_products.ChangesAnswer, "responses": ERRORS, "tags": ["products"]}

    @app.post("/v1/products", **answers)
    async def upsert(products: api_products.Products) -> JSONResponse:
        """Put products in place, whole. Answers once they are durable; searches show them within a second."""
        return JSONResponse(await gateway.change("upsert", products), headers=HEADERS)

    @app.patch("/v1/products", **answers)
    async def patch(products: api_products.Products) -> JSONResponse:
        """Change fields of products; null takes one away. What no modality is made of costs no encoding."""
        return JSONResponse(await gateway.change("patch", products), headers=HEADERS)

    @app.post("/v1/products/delete", **answers)
    async def delete(deletion: api_products.Deletion) -> JSONResponse:
        """Take products away."""
        return JSONResponse(await gateway.change("delete", deletion.ids), headers=HEADERS)

    @app.get("/v1/products/{product_id:path}/image", response_class=FileResponse, responses=MISSING, tags=["products"])
    async def image(product_id: str) -> FileResponse:
        """The main picture."""
        file, kind = gateway.picture(product_id)
        return FileResponse(file, media_type=kind, headers=HEADERS | {"Cache-Control": "public, max-age=3600"})

    @app.get("/v1/products/{product_id:path}", response_model=api.Product, responses=MISSING, tags=["products"])
    async def product(product_id: str) -> JSONResponse:
        """One product, whole."""
        return JSONResponse(gateway.product(product_id), headers=HEADERS)


def _add_operations(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/health/live", response_model=api.Health, tags=["operations"])
    async def live() -> dict[str, str]:
        """The gateway runs."""
        return {"status": "live"}

    @app.get("/v1/health/ready", response_model=api.Health, responses={503: ERRORS[503]}, tags=["operations"])
    async def ready() -> dict[str, str]:
        """Every deployment answers."""
        await gateway.ready()
        return {"status": "ready"}

    @app.get("/v1/generations", response_model=api.Generations, tags=["operations"])
    async def generations() -> dict[str, Any]:
        """The generations on disk; the active one answers."""
        return {"generations": gateway.generations}


def _add_storefront(app: FastAPI) -> None:
    policy = "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'"

    @app.get("/", include_in_schema=False)
    @app.get("/{page}", include_in_schema=False)
    async def storefront(page: str = "") -> Response:
        if page not in PAGES:
            raise HTTPException(404)
        file = STATIC / (page or "index.html")
        return FileResponse(file, media_type=PAGES[page], headers=HEADERS | {"Content-Security-Policy": policy})


def _handle_errors(app: FastAPI) -> None:
    def answer(failure: Failure, headers: dict[str, str] | None = None) -> JSONResponse:
        message = failure.message.encode("utf-8", "replace").decode()  # it may quote what no encoder takes
        body = {"code": failure.code, "message": message, "hint": failure.hint}
        return JSONResponse({"error": body}, failure.status, HEADERS | (headers or {}))

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return answer(error.failure, {"Retry-After": str(error.retry_after)} if error.retry_after else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        if any(item["type"] == "json_invalid" for item in errors):
            return answer(Failure(400, "bad_json", "The body is not valid JSON.", "Send application/json."))
        return answer(Failure(422, "bad_request", api.reason(errors), "See /docs for the fields and their limits."))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        words = {404: f"There is no {request.url.path[:200]}.", 405: f"{request.method} is not allowed here."}
        message = words.get(error.status_code, str(error.detail))
        failure = Failure(error.status_code, CODES.get(error.status_code, "bad_request"), message, "See /docs.")
        return answer(failure, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        log.error("unhandled", exc_info=error)
        return answer(INTERNAL)
