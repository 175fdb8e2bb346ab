"""Bearer secrets of devices and API keys: made once, shown once, stored as a hash.

A secret reads `<kind>_<id>_<43 random characters>`. The random part has 256 bits, so a plain
SHA-256 is a safe store and a constant-time comparison a safe check.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from hashlib import sha256
from uuid import UUID

from flasc_core.errors import Reason, Refusal

__all__ = ["ApiKey", "Device", "SecretKind", "check_name", "claimed_id", "matches", "mint"]


@unique
class SecretKind(StrEnum):
    DEVICE = "fld"
    API_KEY = "flk"


def mint(kind: SecretKind, owner: UUID) -> tuple[str, bytes]:
    """A new secret for `owner`, and the hash to store."""
    secret = f"{kind}_{owner.hex}_{secrets.token_urlsafe(32)}"
    return secret, sha256(secret.encode()).digest()


def claimed_id(kind: SecretKind, secret: str) -> UUID:
    """Whose secret this claims to be. Refuses (CREDENTIAL_INVALID) what is not of the form."""
    form = re.fullmatch(rf"{kind}_([0-9a-f]{{32}})_[A-Za-z0-9_-]{{43}}", secret)
    if form is None:
        raise Refusal(
            Reason.CREDENTIAL_INVALID, f"this is no {kind}_… credential; check what was copied"
        )
    return UUID(hex=form.group(1))


def check_name(name: str) -> None:
    """Refuses (FIELD_RANGE) a name that a line of a list can not show."""
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise Refusal(Reason.FIELD_RANGE, "a name has 1 to 200 printable characters")


def matches(secret: str, stored_sha256: bytes) -> bool:
    return hmac.compare_digest(sha256(secret.encode()).digest(), stored_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    id: UUID
    name: str
    credential_sha256: bytes
    enrolled_at: datetime
    # What it can carry, in the words of tasks' tiers; "" where nobody has said.
    tier: str = ""
    revoked_at: datetime | None = None
    last_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    id: UUID
    name: str
    key_sha256: bytes
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    # The key that it was made with over REST; None for one made on the service's machine.
    made_by: UUID | None = None

    def check_outlives(self, made: ApiKey) -> None:
        """Else whoever has a key for a day could have one for years."""
        if made.expires_at > self.expires_at:
            end = self.expires_at.isoformat(sep=" ", timespec="seconds")
            raise Refusal(
                Reason.FIELD_RANGE,
                f"a key ends no later than the one that makes it, at {end}; "
                "`flasc keys create` on the service's machine makes others",
            )

    def check_valid(self, now: datetime) -> None:
        if self.revoked_at is not None or now >= self.expires_at:
            raise Refusal(
                Reason.CREDENTIAL_INVALID,
                "this API key has been revoked or has expired; create one with `flasc keys create`",
            )
