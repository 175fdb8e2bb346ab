"""Between wire messages and the values of the use cases, with every field checked on arrival."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from aggregator_service.app.check_in import Assigned, CheckInResult, Finished, Query
from aggregator_service.app.upload_rules import Receipt, UpdateHeader
from aggregator_service.domain.assignments import AssignmentState, Evaluation, TrainingMetrics
from aggregator_service.domain.rounds import RoundKind, RoundPolicy
from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = [
    "OUTCOMES",
    "encode_check_in",
    "encode_receipt",
    "encode_retry_window",
    "parse",
    "read_detail",
    "read_evaluation",
    "read_header",
    "read_outcome",
    "read_query",
    "read_upload_query",
    "read_uuid",
]

M = TypeVar("M", bound=Message)

OUTCOMES: Final[Mapping[int, AssignmentState]] = MappingProxyType(
    {
        pb.OUTCOME_GAVE_UP: AssignmentState.ABANDONED,
        pb.OUTCOME_FAILED: AssignmentState.FAILED,
        pb.OUTCOME_EVALUATED: AssignmentState.EVALUATED,
    }
)

_PURPOSES: Final = MappingProxyType(
    {RoundKind.TRAINING: pb.PURPOSE_TRAIN, RoundKind.EVALUATION: pb.PURPOSE_EVALUATE}
)

_MAX_DETAIL_CHARACTERS: Final = 500

# What devices count is added up per round, as 64-bit integers and float64. Within these bounds no
# sum of any cohort overflows, whatever its devices say.
_MAX_COUNT: Final = 2**32
_MAX_MAGNITUDE: Final = 1e100


def parse(kind: type[M], data: bytes) -> M:
    """Refuses MALFORMED_MESSAGE, which no client retries; left to gRPC it would be INTERNAL."""
    try:
        return kind.FromString(data)
    except (DecodeError, RecursionError):
        raise Refusal(
            Reason.MALFORMED_MESSAGE, f"these bytes are no {kind.DESCRIPTOR.full_name}"
        ) from None


def read_uuid(data: bytes, field: str) -> UUID:
    if not data:
        raise Refusal(Reason.FIELD_REQUIRED, f"{field} is missing")
    if len(data) != 16:
        raise Refusal(Reason.FIELD_RANGE, f"{field} has 16 bytes, not {len(data)}")
    return UUID(bytes=data)


def read_query(message: pb.CheckInRequest) -> Query:
    if not message.task_name:
        raise Refusal(Reason.FIELD_REQUIRED, "task_name is missing")
    _check_text(message.task_name, "task_name")
    return Query(
        task_name=message.task_name,
        layout_fingerprint=_optional_digest(message.layout_fingerprint, "layout_fingerprint"),
        base_model_sha256=_optional_digest(message.base_model_sha256, "base_model_sha256"),
    )


def read_header(message: pb.UpdateHeader) -> UpdateHeader:
    return UpdateHeader(
        assignment_id=read_uuid(message.assignment_id, "assignment_id"),
        payload_sha256=_digest(message.payload_sha256, "payload_sha256"),
        payload_size_bytes=message.payload_size_bytes,
        download_sha256=_digest(message.download_sha256, "download_sha256"),
        weight=message.weight,
        training_metrics=_read_metrics(message),
        evaluation=read_evaluation(message),
        steps_down=message.steps_down,
    )


def read_upload_query(message: pb.QueryUploadRequest) -> tuple[UUID, bytes]:
    """The assignment and the payload's digest."""
    return (
        read_uuid(message.assignment_id, "assignment_id"),
        _digest(message.payload_sha256, "payload_sha256"),
    )


def read_evaluation(message: pb.UpdateHeader | pb.ReportOutcomeRequest) -> Evaluation | None:
    if not message.HasField("evaluation"):
        return None
    counts = message.evaluation
    if counts.correct > counts.total:
        raise Refusal(Reason.FIELD_RANGE, "evaluation counts more correct answers than examples")
    if counts.total > _MAX_COUNT:
        raise Refusal(Reason.FIELD_RANGE, f"evaluation.total is at most {_MAX_COUNT}")
    return Evaluation(
        correct=counts.correct,
        total=counts.total,
        loss_sum=_number(counts.loss_sum, "evaluation.loss_sum"),
    )


def read_outcome(message: pb.ReportOutcomeRequest) -> AssignmentState:
    if message.outcome == pb.OUTCOME_UNSPECIFIED:
        raise Refusal(Reason.FIELD_REQUIRED, "outcome is missing")
    state = OUTCOMES.get(message.outcome)
    if state is None:
        raise Refusal(Reason.UNKNOWN_ENUM, f"outcome {message.outcome} is not known here")
    return state


def read_detail(message: pb.ReportOutcomeRequest) -> str:
    if len(message.detail) > _MAX_DETAIL_CHARACTERS:
        raise Refusal(Reason.FIELD_RANGE, f"detail has at most {_MAX_DETAIL_CHARACTERS} characters")
    _check_text(message.detail, "detail")
    return message.detail


def encode_check_in(result: CheckInResult, known_task_sha256: bytes) -> pb.CheckInResponse:
    match result:
        case Assigned():
            return pb.CheckInResponse(assignment=_encode_assignment(result, known_task_sha256))
        case Finished():
            return pb.CheckInResponse(finished=pb.Finished(final_version=result.final_version))
        case _:
            return pb.CheckInResponse(retry_window=encode_retry_window(result.policy))


def encode_retry_window(policy: RoundPolicy) -> pb.RetryWindow:
    return pb.RetryWindow(
        delay_min=_duration(policy.retry_min), delay_max=_duration(policy.retry_max)
    )


def encode_receipt(receipt: Receipt) -> pb.Receipt:
    update = receipt.update
    return pb.Receipt(
        update_id=update.id.bytes,
        payload_sha256=update.payload_sha256,
        ledger_sequence=update.sequence,
        accepted_at=_timestamp(update.accepted_at),
        duplicate=receipt.duplicate,
    )


def _encode_assignment(result: Assigned, known_task_sha256: bytes) -> pb.Assignment:
    task, current, assignment = result.task, result.round, result.assignment
    plan = task.config.plan(current.index, assignment.tier)
    return pb.Assignment(
        assignment_id=assignment.id.bytes,
        round_id=current.id.bytes,
        round_number=current.number,
        task_sha256=task.spec_sha256,
        task_spec=b"" if known_task_sha256 == task.spec_sha256 else task.spec,
        download=pb.Download(
            adapter_version=current.base_version,
            sha256=assignment.download_sha256,
            size_bytes=assignment.download_size_bytes,
        ),
        upload_rule=plan.upload.to_message(),
        train_rule=plan.training.to_message(),
        weight_rule=plan.weighing.to_message(),
        training_seed=assignment.training_seed,
        expires_at=_timestamp(assignment.expires_at),
        purpose=_PURPOSES[current.kind],
    )


def _read_metrics(message: pb.UpdateHeader) -> TrainingMetrics | None:
    if not message.HasField("training_metrics"):
        return None
    metrics = message.training_metrics
    if max(metrics.examples, metrics.steps) > _MAX_COUNT:
        raise Refusal(Reason.FIELD_RANGE, f"training_metrics counts at most {_MAX_COUNT}")
    return TrainingMetrics(
        examples=metrics.examples,
        steps=metrics.steps,
        loss_mean=_number(metrics.loss_mean, "training_metrics.loss_mean"),
        seconds=_number(metrics.seconds, "training_metrics.seconds"),
    )


def _check_text(text: str, field: str) -> None:
    if "\0" in text:
        raise Refusal(Reason.FIELD_RANGE, f"{field} holds a NUL, which PostgreSQL can not keep")


def _digest(data: bytes, field: str) -> bytes:
    if not data:
        raise Refusal(Reason.FIELD_REQUIRED, f"{field} is missing")
    return _optional_digest(data, field)


def _optional_digest(data: bytes, field: str) -> bytes:
    if len(data) not in (0, 32):
        raise Refusal(Reason.FIELD_RANGE, f"{field} has 32 bytes, not {len(data)}")
    return data


def _number(value: float, field: str) -> float:
    if not math.isfinite(value):
        raise Refusal(Reason.NON_FINITE, f"{field} is not finite")
    if abs(value) > _MAX_MAGNITUDE:
        raise Refusal(Reason.FIELD_RANGE, f"{field} is beyond {_MAX_MAGNITUDE}")
    return value


def _duration(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
