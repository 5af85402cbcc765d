"""The OpenAPI document's part on keys and refusals: what FastAPI cannot know because middleware does it."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from serve.guard import need_of

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, where the service asks for keys"},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "the same, in a header of its own",
    },
}
BODIES = {"400": "the body is not JSON", "413": "the body is too large"}  # what any endpoint with a body may say
REFUSALS = {"401": "no valid API key", "403": "the key lacks the scope", "429": "too many requests (Retry-After)"}


def describe(app: FastAPI) -> None:
    """Let the document of an app with all its routes say which keys they ask for."""
    make = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = make()
            found["components"].setdefault("securitySchemes", SCHEMES)
            for route in app.routes:
                if isinstance(route, APIRoute) and route.include_in_schema:
                    for method in route.methods or ():
                        operation = found["paths"][route.path_format][method.lower()]
                        _add(operation, BODIES if "requestBody" in operation else {})
                        _secure(operation, need_of(route).scope)
        return make()

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _secure(operation: dict[str, Any], scope: str | None) -> None:
    if scope is None:
        return
    operation["security"] = [{"bearer": []}, {"header": []}, {}]
    operation["description"] = f"{operation.get('description', '')}\n\nScope: `{scope}`.".strip()
    _add(operation, REFUSALS)


def _add(operation: dict[str, Any], refusals: dict[str, str]) -> None:
    schema = {"$ref": "#/components/schemas/ErrorAnswer"}
    for status, what in refusals.items():
        found = {"description": what, "content": {"application/json": {"schema": schema}}}
        operation["responses"].setdefault(status, found)
