"""The admin API put together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from admin_api import openapi
from admin_api.event_feed import EventFeed
from admin_api.middleware import AccessLog, Authenticate, LimitBody
from admin_api.problems import handle_problems, refusals
from admin_api.routes import adapters, dashboard, devices, events, keys, operations, rounds, tasks
from admin_api.services import Services
from aggregator_service.app.authenticate_api_key import AuthenticateApiKey
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason

__all__ = ["create_app"]

# Of the contract: it grows with added fields and routes, and /v2 would be another contract.
_VERSION: Final = "1.0"
_DESCRIPTION: Final = """\
Tasks, rounds, devices and adapters of a federated LoRA service.

Every request but those for health carries an API key. Lists are pages: pass `next_cursor` as
`cursor` until it is null. Errors are problem details (RFC 9457); programs go by their `reason`."""


def create_app(
    *, store: Store, blobs: BlobStore, now: Callable[[], datetime], grpc_address: str
) -> FastAPI:
    """The app, without a server; `app.state.services.feed.stop()` ends its streams."""
    authenticate = AuthenticateApiKey(store=store, now=now)
    app = FastAPI(
        title="FLASC admin API",
        version=_VERSION,
        summary="The operator's side of federated LoRA",
        description=_DESCRIPTION,
        # The pages that FastAPI brings load from elsewhere; the description itself needs a key.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        responses=refusals(
            Reason.CREDENTIAL_MISSING,
            Reason.CREDENTIAL_INVALID,
            Reason.FIELD_RANGE,
            Reason.STORAGE,
        ),
        middleware=[
            Middleware(AccessLog),
            Middleware(Authenticate, authenticate=authenticate),
            Middleware(LimitBody),
        ],
    )
    app.state.services = Services(
        store=store,
        blobs=blobs,
        now=now,
        grpc_address=grpc_address,
        feed=EventFeed(store, now),
    )
    handle_problems(app)
    for part in (tasks, rounds, adapters, devices, keys, events, operations, dashboard):
        app.include_router(part.router)

    @cache
    def describe() -> dict[str, Any]:
        return openapi.describe(app)

    app.openapi = describe  # type: ignore[method-assign]
    return app
