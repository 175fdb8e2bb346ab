"""A key to the admin API is made, and shown this once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from aggregator_service.domain.credentials import ApiKey, SecretKind, check_name, mint
from aggregator_service.store.base import Lock, Store, Transaction
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
        Refuses CONFIGURATION, FIELD_RANGE, and CREDENTIAL_INVALID where it has ended meanwhile.
        """
        check_name(name)
        if not timedelta(minutes=1) <= lifetime <= timedelta(days=3660):
            raise Refusal(Reason.FIELD_RANGE, "a key lives for 1 minute to 10 years")
        key_id = uuid4()
        secret, stored = mint(SecretKind.API_KEY, key_id)
        now = self.now()
        key = ApiKey(
            id=key_id,
            name=name,
            key_sha256=stored,
            created_at=now,
            expires_at=now + lifetime,
            made_by=None if made_by is None else made_by.id,
        )
        if made_by is not None:
            made_by.check_outlives(key)

        def body(tx: Transaction) -> None:
            if key.made_by is not None:
                # Exclusively: whoever revokes it either has done so, or ends the new one as well.
                maker = tx.api_keys.get(key.made_by, Lock.EXCLUSIVE)
                if maker is None:
                    raise AssertionError(f"API key {key.made_by} is gone")
                maker.check_valid(now)
            tx.api_keys.add(key)

        self.store.run("create_api_key", body)
        return key, secret
