"""The OpenAPI document's part on keys: the scope of each endpoint and the refusals that come of it."""

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
                        _secure(found["paths"][route.path_format][method.lower()], need_of(route).scope)
        return make()

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _secure(operation: dict[str, Any], scope: str | None) -> None:
    if scope is None:
        return
    operation["security"] = [{"bearer": []}, {"header": []}, {}]
    operation["description"] = f"{operation.get('description', '')}\n\nScope: `{scope}`.".strip()
    for status, what in REFUSALS.items():
        operation["responses"].setdefault(
            status,
            {
                "description": what,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
            },
        )
