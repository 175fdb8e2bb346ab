"""Devices and API keys: who may talk to the service."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from admin_api.schemas.common import Id, Input, Output, Time
from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.store.base import DeviceCounts

__all__ = [
    "ApiKeyView",
    "DeviceCountsView",
    "DeviceView",
    "EnrolledDevice",
    "NewApiKey",
    "NewApiKeyView",
    "NewDevice",
    "NewTier",
]


TierName = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$",
        description="Which method the device runs, in tasks with tiers of this name; empty for "
        "the task's own method.",
        examples=["phone"],
    ),
]


class NewDevice(Input):
    name: str = Field(min_length=1, max_length=200, examples=["pixel-8-berlin-014"])
    tier: TierName = ""


class NewTier(Input):
    tier: TierName


class DeviceView(Output):
    id: Id
    name: str = Field(examples=["pixel-8-berlin-014"])
    tier: str = Field(description="What tasks' tiers call it; empty for none.", examples=["phone"])
    enrolled_at: Time
    last_seen_at: Time | None = Field(description="To the minute; null before its first call.")
    revoked_at: Time | None

    @classmethod
    def of(cls, device: Device) -> Self:
        return cls(
            id=device.id,
            name=device.name,
            tier=device.tier,
            enrolled_at=device.enrolled_at,
            last_seen_at=device.last_seen_at,
            revoked_at=device.revoked_at,
        )


class DeviceCountsView(Output):
    enrolled: int = Field(description="Revoked ones are not among them.", examples=[120])
    revoked: int = Field(examples=[3])
    seen_last_hour: int = Field(description="Enrolled ones that called.", examples=[87])

    @classmethod
    def of(cls, counts: DeviceCounts) -> Self:
        return cls(enrolled=counts.enrolled, revoked=counts.revoked, seen_last_hour=counts.seen)


class EnrolledDevice(Output):
    device: DeviceView
    credential: str = Field(
        description="Shown this once: only its hash is kept.",
        examples=["fld_7f8c1d523c1e4a7b9d5b0e2f6a1c4b8d_kX3…"],
    )
    grpc_address: str = Field(
        description="Where the device reaches the aggregator.", examples=["127.0.0.1:8470"]
    )


class NewApiKey(Input):
    name: str = Field(min_length=1, max_length=200, examples=["ci"])
    lifetime_days: float = Field(gt=0, le=3660, examples=[90])


class ApiKeyView(Output):
    id: Id
    name: str = Field(examples=["ci"])
    created_at: Time
    expires_at: Time
    revoked_at: Time | None
    made_by: Id | None = Field(
        description="The API key that it was made with, and ends with; null for one that was made "
        "on the service's machine."
    )

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls(
            id=key.id,
            name=key.name,
            created_at=key.created_at,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            made_by=key.made_by,
        )


class NewApiKeyView(Output):
    key: ApiKeyView
    secret: str = Field(
        description="Shown this once: only its hash is kept.",
        examples=["flk_7f8c1d523c1e4a7b9d5b0e2f6a1c4b8d_Yw9…"],
    )
