"""An API key ends before its time, and with it all that were made with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.domain.credentials import ApiKey
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["RevokeApiKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeApiKey:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, key_id: UUID) -> ApiKey:
        """Repeating is harmless. Refuses KEY_UNKNOWN."""
        now = self.now()

        def body(tx: Transaction) -> ApiKey:
            tx.api_keys.revoke(key_id, now)
            key = tx.api_keys.get(key_id)
            if key is None:
                raise Refusal(Reason.KEY_UNKNOWN, "no such API key", key_id=str(key_id))
            return key

        return self.store.run("revoke_api_key", body)
