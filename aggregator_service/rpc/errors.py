"""How refusals and failures look to a gRPC client."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

import grpc

from flasc_core.errors import Reason, Refusal

__all__ = ["STATUS", "storage_refusal", "too_slow_refusal"]

_CODE = grpc.StatusCode

# Every reason has its status code; a device acts on the reason, a proxy on the code.
STATUS: Final[Mapping[Reason, grpc.StatusCode]] = MappingProxyType(
    {
        Reason.MALFORMED_MESSAGE: _CODE.INVALID_ARGUMENT,
        Reason.FIELD_REQUIRED: _CODE.INVALID_ARGUMENT,
        Reason.FIELD_RANGE: _CODE.INVALID_ARGUMENT,
        Reason.UNKNOWN_ENUM: _CODE.INVALID_ARGUMENT,
        Reason.MESSAGE_TOO_LARGE: _CODE.RESOURCE_EXHAUSTED,
        Reason.CHUNK_SEQUENCE: _CODE.INVALID_ARGUMENT,
        Reason.DIGEST_MISMATCH: _CODE.DATA_LOSS,
        Reason.OFFSET_RANGE: _CODE.OUT_OF_RANGE,
        Reason.VALUE_FORMAT: _CODE.INVALID_ARGUMENT,
        Reason.DIMENSION_MISMATCH: _CODE.INVALID_ARGUMENT,
        Reason.SEGMENT_ORDER: _CODE.INVALID_ARGUMENT,
        Reason.INDEX_RANGE: _CODE.OUT_OF_RANGE,
        Reason.K_BUDGET: _CODE.INVALID_ARGUMENT,
        Reason.LENGTH_MISMATCH: _CODE.INVALID_ARGUMENT,
        Reason.NON_FINITE: _CODE.INVALID_ARGUMENT,
        Reason.VALUE_RANGE: _CODE.INVALID_ARGUMENT,
        Reason.WEIGHT_RANGE: _CODE.INVALID_ARGUMENT,
        Reason.CHECKSUM_MISMATCH: _CODE.INVALID_ARGUMENT,
        Reason.DECOMPRESS_LIMIT: _CODE.INVALID_ARGUMENT,
        Reason.CREDENTIAL_MISSING: _CODE.UNAUTHENTICATED,
        Reason.CREDENTIAL_INVALID: _CODE.UNAUTHENTICATED,
        Reason.DEVICE_REVOKED: _CODE.PERMISSION_DENIED,
        Reason.TASK_UNKNOWN: _CODE.NOT_FOUND,
        Reason.ROUND_UNKNOWN: _CODE.NOT_FOUND,
        Reason.ASSIGNMENT_UNKNOWN: _CODE.NOT_FOUND,
        Reason.UPDATE_UNKNOWN: _CODE.NOT_FOUND,
        Reason.ADAPTER_UNKNOWN: _CODE.NOT_FOUND,
        Reason.DEVICE_UNKNOWN: _CODE.NOT_FOUND,
        Reason.KEY_UNKNOWN: _CODE.NOT_FOUND,
        Reason.LAYOUT_MISMATCH: _CODE.FAILED_PRECONDITION,
        Reason.BASE_MODEL_MISMATCH: _CODE.FAILED_PRECONDITION,
        Reason.ASSIGNMENT_EXPIRED: _CODE.FAILED_PRECONDITION,
        Reason.ROUND_CLOSED: _CODE.FAILED_PRECONDITION,
        Reason.STALE_BASE: _CODE.FAILED_PRECONDITION,
        Reason.UPDATE_CONFLICT: _CODE.ALREADY_EXISTS,
        Reason.UPDATE_RETRACTED: _CODE.FAILED_PRECONDITION,
        Reason.TASK_STATE: _CODE.FAILED_PRECONDITION,
        Reason.NAME_TAKEN: _CODE.ALREADY_EXISTS,
        Reason.CONFIGURATION: _CODE.INVALID_ARGUMENT,
        Reason.OVERLOADED: _CODE.RESOURCE_EXHAUSTED,
        Reason.STORAGE: _CODE.UNAVAILABLE,
    }
)


def storage_refusal() -> Refusal:
    """What a device hears while the database or the blob store can not be used."""
    return Refusal(
        Reason.STORAGE,
        "the service can not store anything now; try again later",
        retry_after=timedelta(seconds=2),
    )


def too_slow_refusal() -> Refusal:
    """What a device hears whose transfer stalls or takes too long."""
    return Refusal(
        Reason.OVERLOADED,
        "the transfer was too slow; try again on a better connection",
        retry_after=timedelta(seconds=30),
    )
