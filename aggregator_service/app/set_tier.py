"""An operator says what a device can carry."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from aggregator_service.domain.credentials import Device
from aggregator_service.domain.tasks import check_tier_name
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["SetTier"]


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
