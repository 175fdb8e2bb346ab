"""A key to the admin API is made, and shown this once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from aggregator_service.domain.credentials import ApiKey, SecretKind, check_name, mint
from aggregator_service.store.base import Store
from flasc_core.errors import Reason, Refusal

__all__ = ["CreateApiKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateApiKey:
    store: Store
    now: Callable[[], datetime]

    def __call__(
        self, name: str, lifetime: timedelta, *, made_by: ApiKey | None
    ) -> tuple[ApiKey, str]:
        """The key and its secret, which is shown this once.

        `made_by` is the caller's own key, or None on the service's machine, where no key is needed.
        """
        check_name(name)
        if not timedelta(minutes=1) <= lifetime <= timedelta(days=3660):
            raise Refusal(Reason.FIELD_RANGE, "a key lives for 1 minute to 10 years")
        key_id = uuid4()
        secret, stored = mint(SecretKind.API_KEY, key_id)
        now = self.now()
        key = ApiKey(
            id=key_id, name=name, key_sha256=stored, created_at=now, expires_at=now + lifetime
        )
        if made_by is not None:
            made_by.check_outlives(key)
        self.store.run("create_api_key", lambda tx: tx.api_keys.add(key))
        return key, secret
