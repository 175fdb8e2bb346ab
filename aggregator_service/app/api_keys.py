"""Keys to the admin API: made once, shown once, checked on every request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from aggregator_service.domain.credentials import ApiKey, SecretKind, claimed_id, matches, mint
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["AuthenticateApiKey", "CreateApiKey", "RevokeApiKey"]


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
        if not 1 <= len(name) <= 200 or not name.isprintable():
            raise Refusal(Reason.FIELD_RANGE, "a key's name has 1 to 200 printable characters")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticateApiKey:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, secret: str) -> ApiKey:
        """Refuses CREDENTIAL_INVALID, the same for unknown, wrong, revoked and expired."""
        key_id = claimed_id(SecretKind.API_KEY, secret)
        key = self.store.read("authenticate_api_key", lambda tx: tx.api_keys.get(key_id))
        if key is None or not matches(secret, key.key_sha256):
            raise Refusal(
                Reason.CREDENTIAL_INVALID,
                "this API key is not valid; create one with `flasc keys create`",
            )
        key.check_valid(self.now())
        return key


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
