"""A device stops being trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.domain.credentials import Device
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["RevokeDevice"]


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
