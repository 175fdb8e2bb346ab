"""What every request passes: one log line, safe headers, a key, and a bound on its size."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.problems import problem_response, unavailable
from admin_api.routes.dashboard import PAGE_PATHS
from aggregator_service.domain.credentials import ApiKey
from aggregator_service.store.base import StoreUnavailable
from aggregator_service.telemetry import HTTP_REQUESTS
from flasc_core.errors import Reason, Refusal

__all__ = ["AccessLog", "Authenticate", "LimitBody"]

_OPEN_PATHS: Final = PAGE_PATHS | {"/healthz", "/readyz"}
_UPLOAD_PATH: Final = "/v1/tasks"
_MAX_UPLOAD_BYTES: Final = 1 << 30
_MAX_BODY_BYTES: Final = 1 << 20

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = structlog.get_logger(__name__)


class AccessLog:
    """One line and one count per request, by route and never by path: labels stay few."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            route = _route(scope)
            key: ApiKey | None = scope.get("state", {}).get("api_key")
            HTTP_REQUESTS.labels(_method(scope), route, str(status)).inc()
            log.info(
                "http_request",
                method=_method(scope),
                route=route,
                status=status,
                seconds=round(time.monotonic() - started, 6),
                key_id=None if key is None else str(key.id),
            )


class Authenticate:
    """Refuses by default: a route is open only if its path is listed above.

    It runs before anything of the body is read, which a dependency of a route would not.
    """

    def __init__(self, app: ASGIApp, *, authenticate: Callable[[str], ApiKey]) -> None:
        self._app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            try:
                secret = _bearer_secret(Headers(scope=scope))
                key = await run_in_threadpool(self._authenticate, secret)
            except Refusal as refusal:
                await problem_response(refusal)(scope, receive, send)
                return
            except StoreUnavailable as error:
                await problem_response(unavailable(error))(scope, receive, send)
                return
            scope.setdefault("state", {})["api_key"] = key
        await self._app(scope, receive, send)


class LimitBody:
    """Refuses (MESSAGE_TOO_LARGE) a body beyond its bound, as soon as it passes it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _MAX_UPLOAD_BYTES if scope["path"] == _UPLOAD_PATH else _MAX_BODY_BYTES
        received = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Not a Refusal: FastAPI would call whatever else stops its reading a bad request.
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {limit} bytes here"
                )
            return message

        await self._app(scope, receive_counting, send)


def _bearer_secret(headers: Headers) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Refusal(
            Reason.CREDENTIAL_MISSING,
            "send `Authorization: Bearer flk_…`; create a key with `flasc keys create`",
        )
    return secret.strip()


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    # Answers to a key are nobody else's to keep.
    headers.setdefault("Cache-Control", "no-store")


def _route(scope: Scope) -> str:
    path: str = scope["path"]
    template: str = getattr(scope.get("route"), "path", "(none)")
    return path if path in PAGE_PATHS else template


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    # Clients may send any word; metrics have room for few.
    return method if method in {"GET", "HEAD", "POST", "OPTIONS"} else "other"
