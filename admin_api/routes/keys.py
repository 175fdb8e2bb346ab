"""API keys: create, list, revoke."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path

from admin_api.lookup import page_of
from admin_api.problems import refusals
from admin_api.schemas.common import Page
from admin_api.schemas.devices import ApiKeyView, NewApiKey, NewApiKeyView
from admin_api.services import CallerDep, Limit, ServicesDep, UuidCursor
from aggregator_service.app.create_api_key import CreateApiKey
from aggregator_service.app.revoke_api_key import RevokeApiKey
from flasc_core.errors import Reason

__all__ = ["router"]

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyId = Annotated[UUID, Path(examples=["7f8c1d52-3c1e-4a7b-9d5b-0e2f6a1c4b8d"])]


@router.post("", status_code=201, responses=refusals(Reason.FIELD_REQUIRED, Reason.FIELD_RANGE))
def create_key(services: ServicesDep, caller: CallerDep, new: NewApiKey) -> NewApiKeyView:
    """Create an API key that ends with yours at the latest; its secret is shown this once."""
    create = CreateApiKey(store=services.store, now=services.now)
    key, secret = create(new.name, timedelta(days=new.lifetime_days), made_by=caller)
    return NewApiKeyView(key=ApiKeyView.of(key), secret=secret)


@router.get("")
def list_keys(
    services: ServicesDep, limit: Limit = 50, cursor: UuidCursor = None
) -> Page[ApiKeyView]:
    """List API keys in order of id."""
    found = services.store.read(
        "list_keys", lambda tx: tx.api_keys.page(limit=limit + 1, after=cursor)
    )
    return page_of(found, limit, partial(map, ApiKeyView.of), lambda key: key.id)


@router.post("/{key_id}/revoke", responses=refusals(Reason.KEY_UNKNOWN))
def revoke_key(services: ServicesDep, key_id: KeyId) -> ApiKeyView:
    """Refuse the key, and all that were made with it, from now on; repeating keeps the time."""
    return ApiKeyView.of(RevokeApiKey(store=services.store, now=services.now)(key_id))
