"""The reasons for which a request can be refused, shared by every edge and by devices.

A refusal is expected: it is counted, logged at info and told to the caller by its reason. Anything
else that goes wrong is a bug and keeps its own exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

__all__ = ["DOMAIN", "Reason", "Refusal"]

# The `domain` of every ErrorInfo this system sends.
DOMAIN: Final = "flasc.v1"


@unique
class Reason(StrEnum):
    """Machine-readable reasons; part of the protocol, so never renamed."""

    # The message itself.
    MALFORMED_MESSAGE = "MALFORMED_MESSAGE"
    FIELD_REQUIRED = "FIELD_REQUIRED"
    FIELD_RANGE = "FIELD_RANGE"
    UNKNOWN_ENUM = "UNKNOWN_ENUM"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    CHUNK_SEQUENCE = "CHUNK_SEQUENCE"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    OFFSET_RANGE = "OFFSET_RANGE"
    # The sparse payload.
    VALUE_FORMAT = "VALUE_FORMAT"
    DIMENSION_MISMATCH = "DIMENSION_MISMATCH"
    SEGMENT_ORDER = "SEGMENT_ORDER"
    INDEX_RANGE = "INDEX_RANGE"
    K_BUDGET = "K_BUDGET"
    LENGTH_MISMATCH = "LENGTH_MISMATCH"
    NON_FINITE = "NON_FINITE"
    VALUE_RANGE = "VALUE_RANGE"
    WEIGHT_RANGE = "WEIGHT_RANGE"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    DECOMPRESS_LIMIT = "DECOMPRESS_LIMIT"
    # Who asks.
    CREDENTIAL_MISSING = "CREDENTIAL_MISSING"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    DEVICE_REVOKED = "DEVICE_REVOKED"
    # What is asked for.
    TASK_UNKNOWN = "TASK_UNKNOWN"
    ROUND_UNKNOWN = "ROUND_UNKNOWN"
    ASSIGNMENT_UNKNOWN = "ASSIGNMENT_UNKNOWN"
    UPDATE_UNKNOWN = "UPDATE_UNKNOWN"
    ADAPTER_UNKNOWN = "ADAPTER_UNKNOWN"
    DEVICE_UNKNOWN = "DEVICE_UNKNOWN"
    KEY_UNKNOWN = "KEY_UNKNOWN"
    LAYOUT_MISMATCH = "LAYOUT_MISMATCH"
    BASE_MODEL_MISMATCH = "BASE_MODEL_MISMATCH"
    # The state it meets.
    ASSIGNMENT_EXPIRED = "ASSIGNMENT_EXPIRED"
    ROUND_CLOSED = "ROUND_CLOSED"
    STALE_BASE = "STALE_BASE"
    UPDATE_CONFLICT = "UPDATE_CONFLICT"
    UPDATE_RETRACTED = "UPDATE_RETRACTED"
    TASK_STATE = "TASK_STATE"
    NAME_TAKEN = "NAME_TAKEN"
    CONFIGURATION = "CONFIGURATION"
    # The service's own condition; worth trying again.
    OVERLOADED = "OVERLOADED"
    STORAGE = "STORAGE"


class Refusal(Exception):
    """A request that is refused for a known reason.

    `message` is for people and says what to do next; `facts` are for machines and logs and never
    hold payloads or secrets; `retry_after` is set where the same request can succeed later.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retry_after: timedelta | None = None,
        **facts: str | float,
    ) -> None:
        super().__init__(message)
        self.reason: Final = reason
        self.message: Final = message
        self.retry_after: Final = retry_after
        self.facts: Final[Mapping[str, str | int | float]] = MappingProxyType(facts)

    def about(self, **facts: str | float) -> Refusal:
        """The same refusal with more facts, for a caller that knows what it concerned."""
        return Refusal(
            self.reason, self.message, retry_after=self.retry_after, **{**self.facts, **facts}
        )
