"""ASGI middleware that asks for API keys: 401 without a valid one, 403 without the scope, 429 above its rate.

It stands before any body is read, and it knows the endpoint by the router itself, so no spelling of a path leads
around it. An endpoint that does not say whom it serves (`needs`) serves administrators only.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from fuserank.store.keys import ApiKey
from fuserank.store.keys import Scope as KeyScope
from serve.answer import Answer
from serve.current import CURRENT, Current
from serve.envelope import Failure
from serve.keyring import Keyring
from serve.rates import Rates
from serve.refusal import refuse

log = logging.getLogger("fuserank.serve")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
HINT = "Send `Authorization: Bearer ‹key›`; `fuserank keys create` makes keys."


@dataclass(frozen=True)
class Need:
    """Whom an endpoint serves."""

    scope: KeyScope | None  # None: anybody
    always: bool = False  # also where the service asks for no keys otherwise


UNSAID = Need("admin", always=True)
DOCUMENTATION = {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}  # FastAPI's own; they hold no data


def needs(scope: KeyScope | None, always: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Decorates an endpoint with the scope that its callers' keys must have."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.need = Need(scope, always)  # type: ignore[attr-defined]
        return endpoint

    return mark


def need_of(route: Any) -> Need:
    """Whom a route serves."""
    if route.path in DOCUMENTATION:
        return Need(None)
    return getattr(route.endpoint, "need", UNSAID)


class Guard:
    """Middleware; `router` is the application whose routes it stands before."""

    def __init__(self, app: ASGIApp, router: FastAPI, keyring: Keyring | None, rates: Rates, rate: float):
        """
        Args:
            keyring: None for a service without a database, which then serves all but administration.
            rate: requests a second of keys that have no rate of their own; 0: any number.
        """
        self._app, self._router, self._keyring, self._rates, self._rate = app, router, keyring, rates, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let through."""
        if scope["type"] == "http" and (refusal := self._refusal(scope, CURRENT.get() or Current())) is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, current: Current) -> Answer | None:
        route = self._route(scope)
        if route is None:
            return None  # 404 or 405, by the router
        current.endpoint = route.path
        need = need_of(route)
        if need.scope is None or not (need.always or (self._keyring and self._keyring.required)):
            return None
        presented = _presented(Headers(scope=scope))
        key = self._keyring.find(presented) if presented and self._keyring else None
        if key is None:
            code, what = ("bad_key", "The API key is not valid.") if presented else ("no_key", "An API key is needed.")
            _log(code, scope, current)
            return refuse(Failure(401, code, what, HINT), {"WWW-Authenticate": "Bearer"})
        current.key = key.id
        if need.scope not in key.scopes:
            _log("missing_scope", scope, current)
            hint = f"Use a key that has it; this one has {', '.join(key.scopes)}."
            return refuse(Failure(403, "missing_scope", f"The key lacks the scope `{need.scope}`.", hint))
        return self._too_many(key, scope, current)

    def _too_many(self, key: ApiKey, scope: Scope, current: Current) -> Answer | None:
        rate = self._rate if key.rate is None else key.rate
        wait = self._rates.take(key.name, rate)  # by name: a rotated key does not get twice as much
        if wait == 0:
            return None
        _log("rate_limited", scope, current)
        failure = Failure(429, "rate_limited", f"More than {rate:g} requests a second.", "Wait Retry-After seconds.")
        return refuse(failure, {"Retry-After": str(math.ceil(wait))})

    def _route(self, scope: Scope) -> Any:
        for route in self._router.routes:
            if hasattr(route, "endpoint") and route.matches(scope)[0] is Match.FULL:
                return route
        return None


def _presented(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _log(code: str, scope: Scope, current: Current) -> None:
    """Every refusal, with who asked for what; never with what was presented."""
    client = scope.get("client")
    log.warning(
        "refused %s %s: %s",
        scope["method"],
        current.endpoint,
        code,
        extra={"code": code, "request_id": current.request_id, "key": current.key, "client": client and client[0]},
    )
