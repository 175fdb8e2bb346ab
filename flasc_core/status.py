"""Refusals as the `grpc-status-details-bin` trailer: google.rpc.Status and its details."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from flasc_core.errors import DOMAIN, Refusal
from flasc_core.pb.v1 import status_pb2

__all__ = ["StatusDetails", "decode_status", "encode_status"]

_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDetails:
    """A status as a client sees it. `reason` is None where the server sent no ErrorInfo of ours."""

    code: int
    message: str
    reason: str | None
    metadata: Mapping[str, str]
    retry_delay: timedelta | None


def encode_status(grpc_code: int, refusal: Refusal) -> bytes:
    """Return the trailer's bytes; `grpc_code` is the number of the gRPC status code."""
    info = status_pb2.ErrorInfo(
        reason=refusal.reason.value,
        domain=DOMAIN,
        metadata={key: str(fact) for key, fact in refusal.facts.items()},
    )
    details = [_pack(_ERROR_INFO, info.SerializeToString(deterministic=True))]
    if refusal.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(refusal.retry_after)
        retry = status_pb2.RetryInfo(retry_delay=delay)
        details.append(_pack(_RETRY_INFO, retry.SerializeToString(deterministic=True)))
    status = status_pb2.Status(code=grpc_code, message=refusal.message, details=details)
    return status.SerializeToString(deterministic=True)


def decode_status(data: bytes) -> StatusDetails:
    """Read a trailer; details of other types are ignored. ValueError if it is not a status."""
    reason: str | None = None
    metadata: Mapping[str, str] = {}
    retry_delay: timedelta | None = None
    try:
        status = status_pb2.Status.FromString(data)
        for detail in status.details:
            if detail.type_url == _ERROR_INFO:
                info = status_pb2.ErrorInfo.FromString(detail.value)
                if info.domain == DOMAIN:
                    reason, metadata = info.reason, dict(info.metadata)
            elif detail.type_url == _RETRY_INFO:
                retry = status_pb2.RetryInfo.FromString(detail.value)
                retry_delay = retry.retry_delay.ToTimedelta()
    except (DecodeError, OverflowError, ValueError) as error:
        raise ValueError("the trailer is no status") from error
    return StatusDetails(
        code=status.code,
        message=status.message,
        reason=reason,
        metadata=metadata,
        retry_delay=retry_delay,
    )


def _pack(type_url: str, value: bytes) -> AnyMessage:
    return AnyMessage(type_url=type_url, value=value)
