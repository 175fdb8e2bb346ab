"""Devices become known, and stop being trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from aggregator_service.domain.credentials import Device, SecretKind, claimed_id, matches, mint
from aggregator_service.domain.tasks import check_tier_name
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["AuthenticateDevice", "EnrollDevice", "RevokeDevice", "SetTier"]

# A device's last_seen_at is written at most this often.
TOUCH_INTERVAL: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollDevice:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, name: str, tier: str = "") -> tuple[Device, str]:
        """The device and its credential, which is shown this once.

        Refuses NAME_TAKEN, FIELD_RANGE and CONFIGURATION (the tier's name).
        """
        if tier:
            check_tier_name(tier)
        if not 1 <= len(name) <= 200 or not name.isprintable():
            raise Refusal(Reason.FIELD_RANGE, "a device name has 1 to 200 printable characters")
        device_id = uuid4()
        credential, stored = mint(SecretKind.DEVICE, device_id)
        device = Device(
            id=device_id,
            name=name,
            credential_sha256=stored,
            enrolled_at=self.now(),
            tier=tier,
        )
        self.store.run("enroll_device", lambda tx: tx.devices.add(device))
        return device, credential


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTier:
    store: Store

    def __call__(self, device_id: UUID, tier: str) -> Device:
        """From its next assignment on; "" for none. Refuses DEVICE_UNKNOWN and CONFIGURATION."""
        if tier:
            check_tier_name(tier)

        def body(tx: Transaction) -> Device:
            tx.devices.set_tier(device_id, tier)
            device = tx.devices.get(device_id)
            if device is None:
                raise Refusal(Reason.DEVICE_UNKNOWN, "no such device", device_id=str(device_id))
            return device

        return self.store.run("set_tier", body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeDevice:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, device_id: UUID) -> Device:
        """Its next call is refused. Repeating is harmless. Refuses DEVICE_UNKNOWN."""
        now = self.now()

        def body(tx: Transaction) -> Device:
            tx.devices.revoke(device_id, now)
            device = tx.devices.get(device_id)
            if device is None:
                raise Refusal(Reason.DEVICE_UNKNOWN, "no such device", device_id=str(device_id))
            return device

        return self.store.run("revoke_device", body)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticateDevice:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, credential: str) -> Device:
        """Refuses CREDENTIAL_INVALID, the same for unknown and wrong, and DEVICE_REVOKED."""
        device_id = claimed_id(SecretKind.DEVICE, credential)
        device = self.store.read("authenticate_device", lambda tx: tx.devices.get(device_id))
        if device is None or not matches(credential, device.credential_sha256):
            raise Refusal(
                Reason.CREDENTIAL_INVALID, "this credential is not valid; enrol the device again"
            )
        if device.revoked_at is not None:
            raise Refusal(Reason.DEVICE_REVOKED, "this device has been revoked by the operator")
        now = self.now()
        if device.last_seen_at is None or now - device.last_seen_at >= TOUCH_INTERVAL:
            self.store.run("touch_device", lambda tx: tx.devices.touch(device_id, now))
        return device
