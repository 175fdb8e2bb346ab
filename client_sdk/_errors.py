"""What can go wrong, as exceptions chosen by machine-readable reason, never by text.

* ParticipantError
  + ServiceError             the service did not do what it was asked
    - ConnectionFailed         nobody answered in time; trying again later can help
      . ServiceBusy              overloaded, or its storage is away
      . TransferDamaged          bytes changed on their way
    - NotAuthorized            the credential is missing, wrong or revoked; enrol again
    - TaskUnknown              no task of that name
    - ModelMismatch            this device's model is not the task's
      . LayoutMismatch           adapter tensors differ
      . BaseModelMismatch        frozen weights differ
    - AssignmentOver           too late, or taken back; check in for the next round
    - UpdateRejected           the update's content breaks a rule; the same bytes never pass
    - ProtocolError            the ends disagree about the protocol: a bug, or versions far apart
      . CallUnknown              the service is older than this call
  + TrainingFailed           the app's trainer, or an update that the task would refuse
  + StateFolderError         the state folder can not be used
    - StateFolderInUse         another process holds it
    - StateDamaged             a file in it is not what was written
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

import grpc

from flasc_core.errors import Reason, Refusal
from flasc_core.metadata import STATUS_DETAILS
from flasc_core.status import StatusDetails, decode_status

__all__ = [
    "BY_REASON",
    "AssignmentOver",
    "BaseModelMismatch",
    "CallUnknown",
    "ConnectionFailed",
    "LayoutMismatch",
    "ModelMismatch",
    "NotAuthorized",
    "ParticipantError",
    "ProtocolError",
    "ServiceBusy",
    "ServiceError",
    "StateDamaged",
    "StateFolderError",
    "StateFolderInUse",
    "TaskUnknown",
    "TrainingFailed",
    "TransferDamaged",
    "UpdateRejected",
    "translate",
    "translate_refusal",
]


class ParticipantError(Exception):
    """Everything that the SDK raises on purpose."""


class ServiceError(ParticipantError):
    """`reason` is the service's own, or empty; `retryable` says that the same call may yet pass."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        facts: Mapping[str, str] | None = None,
        retryable: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.reason: Final = reason
        self.facts: Final[Mapping[str, str]] = MappingProxyType(dict(facts or {}))
        self.retryable: Final = retryable
        self.retry_after: Final = retry_after


class ConnectionFailed(ServiceError):
    pass


class ServiceBusy(ConnectionFailed):
    pass


class TransferDamaged(ConnectionFailed):
    pass


class NotAuthorized(ServiceError):
    pass


class TaskUnknown(ServiceError):
    pass


class ModelMismatch(ServiceError):
    pass


class LayoutMismatch(ModelMismatch):
    pass


class BaseModelMismatch(ModelMismatch):
    pass


class AssignmentOver(ServiceError):
    pass


class UpdateRejected(ServiceError):
    pass


class ProtocolError(ServiceError):
    pass


class CallUnknown(ProtocolError):
    pass


class TrainingFailed(ParticipantError):
    """The message reaches the operator, so it holds no training data."""


class StateFolderError(ParticipantError):
    pass


class StateFolderInUse(StateFolderError):
    pass


class StateDamaged(StateFolderError):
    pass


BY_REASON: Final[Mapping[Reason, type[ServiceError]]] = MappingProxyType(
    {
        Reason.MALFORMED_MESSAGE: ProtocolError,
        Reason.FIELD_REQUIRED: ProtocolError,
        Reason.FIELD_RANGE: ProtocolError,
        Reason.UNKNOWN_ENUM: ProtocolError,
        Reason.MESSAGE_TOO_LARGE: UpdateRejected,
        Reason.CHUNK_SEQUENCE: ProtocolError,
        Reason.DIGEST_MISMATCH: TransferDamaged,
        Reason.OFFSET_RANGE: ProtocolError,
        Reason.VALUE_FORMAT: UpdateRejected,
        Reason.DIMENSION_MISMATCH: UpdateRejected,
        Reason.SEGMENT_ORDER: UpdateRejected,
        Reason.INDEX_RANGE: UpdateRejected,
        Reason.K_BUDGET: UpdateRejected,
        Reason.LENGTH_MISMATCH: UpdateRejected,
        Reason.NON_FINITE: UpdateRejected,
        Reason.VALUE_RANGE: UpdateRejected,
        Reason.WEIGHT_RANGE: UpdateRejected,
        Reason.CHECKSUM_MISMATCH: UpdateRejected,
        Reason.DECOMPRESS_LIMIT: UpdateRejected,
        Reason.CREDENTIAL_MISSING: NotAuthorized,
        Reason.CREDENTIAL_INVALID: NotAuthorized,
        Reason.DEVICE_REVOKED: NotAuthorized,
        Reason.DEVICE_UNKNOWN: NotAuthorized,
        Reason.TASK_UNKNOWN: TaskUnknown,
        Reason.ROUND_UNKNOWN: AssignmentOver,
        Reason.ASSIGNMENT_UNKNOWN: AssignmentOver,
        Reason.ADAPTER_UNKNOWN: AssignmentOver,
        Reason.LAYOUT_MISMATCH: LayoutMismatch,
        Reason.BASE_MODEL_MISMATCH: BaseModelMismatch,
        Reason.ASSIGNMENT_EXPIRED: AssignmentOver,
        Reason.ROUND_CLOSED: AssignmentOver,
        Reason.STALE_BASE: AssignmentOver,
        Reason.UPDATE_CONFLICT: AssignmentOver,
        Reason.UPDATE_RETRACTED: AssignmentOver,
        Reason.TASK_STATE: AssignmentOver,
        Reason.OVERLOADED: ServiceBusy,
        Reason.STORAGE: ServiceBusy,
        # Answers of the operators' side; a device that meets one talks to the wrong door.
        Reason.UPDATE_UNKNOWN: ProtocolError,
        Reason.KEY_UNKNOWN: ProtocolError,
        Reason.NAME_TAKEN: ProtocolError,
        Reason.CONFIGURATION: ProtocolError,
    }
)

_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DATA_LOSS,
    }
)
# What an edge in front of the service answers without our reasons.
_BY_CODE: Final[Mapping[grpc.StatusCode, type[ServiceError]]] = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: NotAuthorized,
        grpc.StatusCode.PERMISSION_DENIED: NotAuthorized,
        grpc.StatusCode.UNIMPLEMENTED: CallUnknown,
    }
)


def translate(error: grpc.RpcError) -> ServiceError:
    """Return the exception for a failed call; the caller raises it from the original."""
    code = error.code()
    status = _status(error)
    retryable = code in _RETRYABLE
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        retryable = status.retry_delay is not None
    elif code is grpc.StatusCode.INTERNAL:
        # Without a reason it is the transport's own: a stream that broke.
        retryable = status.reason is None
    fallback = ConnectionFailed if retryable else _BY_CODE.get(code, ProtocolError)
    kind = _kind(status.reason) or fallback
    text = status.message or error.details() or "no details"
    return kind(
        text if status.reason else f"{code.name}: {text}",
        reason=status.reason or "",
        facts=status.metadata,
        retryable=retryable,
        retry_after=status.retry_delay,
    )


def translate_refusal(refusal: Refusal) -> ServiceError:
    """Return the exception for a rule of the shared core that the service's answer breaks."""
    facts = {name: str(fact) for name, fact in refusal.facts.items()}
    return BY_REASON[refusal.reason](refusal.message, reason=refusal.reason, facts=facts)


def _kind(reason: str | None) -> type[ServiceError] | None:
    if reason is None or reason not in Reason.__members__:
        return None
    return BY_REASON[Reason(reason)]


def _status(error: grpc.RpcError) -> StatusDetails:
    for entry in error.trailing_metadata() or ():
        if entry.key == STATUS_DETAILS and isinstance(entry.value, bytes):
            try:
                return decode_status(entry.value)
            except ValueError:
                break
    return StatusDetails(code=0, message="", reason=None, metadata={}, retry_delay=None)
