"""Devices: enrol, list, show, revoke."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path

from admin_api.lookup import page_of
from admin_api.problems import refusals
from admin_api.schemas.common import Page
from admin_api.schemas.devices import (
    DeviceCountsView,
    DeviceView,
    EnrolledDevice,
    NewDevice,
    NewTier,
)
from admin_api.services import Limit, ServicesDep, UuidCursor
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.revoke_device import RevokeDevice
from aggregator_service.app.set_tier import SetTier
from flasc_core.errors import Reason, Refusal

__all__ = ["router"]

router = APIRouter(prefix="/v1/devices", tags=["devices"])

DeviceId = Annotated[UUID, Path(examples=["7f8c1d52-3c1e-4a7b-9d5b-0e2f6a1c4b8d"])]


@router.post(
    "",
    status_code=201,
    responses=refusals(Reason.NAME_TAKEN, Reason.FIELD_REQUIRED, Reason.FIELD_RANGE),
)
def enroll_device(services: ServicesDep, new: NewDevice) -> EnrolledDevice:
    """Make a device known; the answer holds its credential, this once."""
    device, credential = EnrollDevice(store=services.store, now=services.now)(new.name, new.tier)
    return EnrolledDevice(
        device=DeviceView.of(device),
        credential=credential,
        grpc_address=services.grpc_address,
    )


@router.get("")
def list_devices(
    services: ServicesDep, limit: Limit = 50, cursor: UuidCursor = None
) -> Page[DeviceView]:
    """List devices in order of id."""
    found = services.store.read(
        "list_devices", lambda tx: tx.devices.page(limit=limit + 1, after=cursor)
    )
    return page_of(found, limit, partial(map, DeviceView.of), lambda device: device.id)


@router.get("/counts")
def count_devices(services: ServicesDep) -> DeviceCountsView:
    """Count devices that are enrolled, revoked, and heard of in the last hour."""
    since = services.now() - timedelta(hours=1)
    counts = services.store.read("count_devices", lambda tx: tx.devices.counts(seen_since=since))
    return DeviceCountsView.of(counts)


@router.get("/{device_id}", responses=refusals(Reason.DEVICE_UNKNOWN))
def get_device(services: ServicesDep, device_id: DeviceId) -> DeviceView:
    """Show a device."""
    device = services.store.read("show_device", lambda tx: tx.devices.get(device_id))
    if device is None:
        raise Refusal(Reason.DEVICE_UNKNOWN, "no such device", device_id=str(device_id))
    return DeviceView.of(device)


@router.post(
    "/{device_id}/tier",
    responses=refusals(Reason.DEVICE_UNKNOWN, Reason.FIELD_REQUIRED, Reason.FIELD_RANGE),
)
def set_device_tier(services: ServicesDep, device_id: DeviceId, new: NewTier) -> DeviceView:
    """Say which tier the device is of, from its next assignment on."""
    return DeviceView.of(SetTier(store=services.store)(device_id, new.tier))


@router.post("/{device_id}/revoke", responses=refusals(Reason.DEVICE_UNKNOWN))
def revoke_device(services: ServicesDep, device_id: DeviceId) -> DeviceView:
    """Refuse the device from its next call on; repeating keeps the first time."""
    return DeviceView.of(RevokeDevice(store=services.store, now=services.now)(device_id))
