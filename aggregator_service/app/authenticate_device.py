"""A call names its device by a credential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from aggregator_service.domain.credentials import Device, SecretKind, claimed_id, matches
from aggregator_service.store.base import Store
from flasc_core.errors import Reason, Refusal

__all__ = ["AuthenticateDevice"]

# A device's last_seen_at is written at most this often.
TOUCH_INTERVAL: Final = timedelta(minutes=1)


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
