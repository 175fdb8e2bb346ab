"""What routes work with, and how they ask for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request

from admin_api.event_feed import EventFeed
from aggregator_service.domain.credentials import ApiKey
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore

__all__ = [
    "MAX_PAGE",
    "CallerDep",
    "Limit",
    "NumberCursor",
    "Services",
    "ServicesDep",
    "UuidCursor",
]

MAX_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]
    # Where devices reach the aggregator: told to an operator who enrols one.
    grpc_address: str
    feed: EventFeed


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(request: Request) -> ApiKey:
    key: ApiKey = request.state.api_key
    return key


# FastAPI looks annotations up in the module, so these can live nowhere but here.
ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[ApiKey, Depends(_caller)]
Limit = Annotated[
    int, Query(ge=1, le=MAX_PAGE, description="The most items to return.", examples=[50])
]
_CURSOR = "`next_cursor` of the page before; nothing else is a cursor."
UuidCursor = Annotated[UUID | None, Query(description=_CURSOR)]
NumberCursor = Annotated[int | None, Query(ge=0, le=2**31 - 1, description=_CURSOR)]
