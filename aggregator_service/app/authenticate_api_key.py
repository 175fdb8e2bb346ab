"""A request names its API key by a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aggregator_service.domain.credentials import ApiKey, SecretKind, claimed_id, matches
from aggregator_service.store.base import Store
from flasc_core.errors import Reason, Refusal

__all__ = ["AuthenticateApiKey"]


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
