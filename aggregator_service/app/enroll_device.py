"""A device becomes known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from aggregator_service.domain.credentials import Device, SecretKind, check_name, mint
from aggregator_service.domain.tasks import check_tier_name
from aggregator_service.store.base import Store

__all__ = ["EnrollDevice"]


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
        check_name(name)
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
