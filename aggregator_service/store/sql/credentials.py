"""Devices and API keys in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, insert, select, update

from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.store.base import DeviceCounts, Lock
from aggregator_service.store.sql.statements import insert_if_absent, locked
from aggregator_service.store.sql.tables import api_keys, devices
from flasc_core.errors import Reason, Refusal

__all__ = ["SqlApiKeys", "SqlDevices"]


@dataclass(frozen=True, slots=True)
class SqlDevices:
    connection: Connection

    def add(self, device: Device) -> None:
        row = {
            "id": device.id,
            "name": device.name,
            "credential_sha256": device.credential_sha256,
            "enrolled_at": device.enrolled_at,
            "revoked_at": device.revoked_at,
            "last_seen_at": device.last_seen_at,
            "tier": device.tier,
        }
        if not insert_if_absent(self.connection, devices, row, "name"):
            raise Refusal(
                Reason.NAME_TAKEN,
                f"a device named {device.name!r} exists already",
                name=device.name,
            )

    def get(self, device_id: UUID) -> Device | None:
        row = self.connection.execute(select(devices).where(devices.c.id == device_id)).first()
        return None if row is None else _device(row)

    def page(self, *, limit: int, after: UUID | None) -> Sequence[Device]:
        query = select(devices).order_by(devices.c.id).limit(limit)
        if after is not None:
            query = query.where(devices.c.id > after)
        return [_device(row) for row in self.connection.execute(query)]

    def revoke(self, device_id: UUID, now: datetime) -> None:
        query = update(devices).where(devices.c.id == device_id, devices.c.revoked_at.is_(None))
        self.connection.execute(query.values(revoked_at=now))

    def set_tier(self, device_id: UUID, tier: str) -> None:
        query = update(devices).where(devices.c.id == device_id)
        self.connection.execute(query.values(tier=tier))

    def touch(self, device_id: UUID, now: datetime) -> None:
        query = update(devices).where(devices.c.id == device_id)
        self.connection.execute(query.values(last_seen_at=now))

    def counts(self, *, seen_since: datetime) -> DeviceCounts:
        is_enrolled = devices.c.revoked_at.is_(None)
        query = select(
            func.count().filter(is_enrolled).label("enrolled"),
            func.count(devices.c.revoked_at).label("revoked"),
            func.count().filter(is_enrolled, devices.c.last_seen_at >= seen_since).label("seen"),
        )
        row = self.connection.execute(query).one()
        return DeviceCounts(enrolled=row.enrolled, revoked=row.revoked, seen=row.seen)

    def enrolled_before(self, when: datetime) -> Sequence[UUID]:
        query = select(devices.c.id).where(
            devices.c.revoked_at.is_(None), devices.c.enrolled_at < when
        )
        return self.connection.execute(query).scalars().all()


@dataclass(frozen=True, slots=True)
class SqlApiKeys:
    connection: Connection

    def add(self, key: ApiKey) -> None:
        self.connection.execute(
            insert(api_keys).values(
                id=key.id,
                name=key.name,
                key_sha256=key.key_sha256,
                created_at=key.created_at,
                expires_at=key.expires_at,
                revoked_at=key.revoked_at,
                made_by=key.made_by,
            )
        )

    def get(self, key_id: UUID, lock: Lock = Lock.NONE) -> ApiKey | None:
        query = select(api_keys).where(api_keys.c.id == key_id)
        row = self.connection.execute(locked(self.connection, query, key_id, lock)).first()
        return None if row is None else _api_key(row)

    def page(self, *, limit: int, after: UUID | None) -> Sequence[ApiKey]:
        query = select(api_keys).order_by(api_keys.c.id).limit(limit)
        if after is not None:
            query = query.where(api_keys.c.id > after)
        return [_api_key(row) for row in self.connection.execute(query)]

    def revoke(self, key_id: UUID, now: datetime) -> None:
        ending = select(api_keys.c.id).where(api_keys.c.id == key_id).cte(recursive=True)
        ending = ending.union(select(api_keys.c.id).where(api_keys.c.made_by == ending.c.id))
        query = (
            update(api_keys)
            .where(api_keys.c.id.in_(select(ending.c.id)), api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(api_keys.c.id)
        )
        # Again for keys that were being made while this waited for their makers, which it now has.
        while self.connection.execute(query).all():
            pass


def _device(row: Row[Any]) -> Device:
    return Device(
        id=row.id,
        name=row.name,
        credential_sha256=row.credential_sha256,
        enrolled_at=row.enrolled_at,
        revoked_at=row.revoked_at,
        last_seen_at=row.last_seen_at,
        tier=row.tier,
    )


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        key_sha256=row.key_sha256,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        made_by=row.made_by,
    )
