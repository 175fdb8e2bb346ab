"""What an update is refused for, whichever way it comes: rules over the assignment it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from uuid import UUID

from aggregator_service.app.own_assignment import Work
from aggregator_service.domain.assignments import Evaluation, TrainingMetrics
from aggregator_service.domain.rounds import RoundKind, RoundPolicy
from aggregator_service.domain.updates import Update
from flasc_core.errors import Reason, Refusal
from flasc_core.methods import UploadRule

__all__ = [
    "Receipt",
    "UpdateHeader",
    "check_header",
    "check_payload",
    "check_repeats",
    "check_size",
    "payload_limit",
    "repeated",
    "upload_rule",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHeader:
    assignment_id: UUID
    payload_sha256: bytes
    payload_size_bytes: int
    download_sha256: bytes
    weight: int
    training_metrics: TrainingMetrics | None = None
    evaluation: Evaluation | None = None
    steps_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    update: Update
    duplicate: bool
    policy: RoundPolicy


def upload_rule(work: Work) -> UploadRule:
    return work.task.config.plan(work.round.index, work.assignment.tier).upload


def payload_limit(rule: UploadRule) -> int:
    """No honest encoding of what `rule` keeps is larger, in bytes."""
    # A varint gap has up to 5 bytes, a float 4; segments hold up to 65,536 values each.
    segments = rule.max_count // 65_536 + 1
    return 9 * rule.max_count + 128 * segments + 64


def check_size(work: Work, size_bytes: int) -> None:
    """Refuses MESSAGE_TOO_LARGE for a payload that no honest update of this round has."""
    limit = payload_limit(upload_rule(work))
    if size_bytes > limit:
        raise Refusal(
            Reason.MESSAGE_TOO_LARGE,
            f"the payload may have at most {limit} bytes for this assignment",
        )


def check_payload(header: UpdateHeader, payload: bytes) -> None:
    """Refuses LENGTH_MISMATCH and DIGEST_MISMATCH: these are not the bytes of the header."""
    if len(payload) != header.payload_size_bytes:
        raise Refusal(
            Reason.LENGTH_MISMATCH,
            f"{len(payload)} payload bytes arrived, the header says {header.payload_size_bytes}",
        )
    if sha256(payload).digest() != header.payload_sha256:
        raise Refusal(
            Reason.DIGEST_MISMATCH, "the payload was damaged on its way; send the same bytes again"
        )


def check_header(work: Work, header: UpdateHeader) -> None:
    """Refuses ROUND_CLOSED, STALE_BASE and WEIGHT_RANGE: what no payload can mend."""
    if work.round.kind is not RoundKind.TRAINING:
        raise Refusal(Reason.ROUND_CLOSED, "this round only evaluates; it takes no updates")
    if header.download_sha256 != work.assignment.download_sha256:
        raise Refusal(
            Reason.STALE_BASE,
            "the update is relative to another download than this assignment's; train again",
        )
    max_weight = work.task.config.limits.max_weight
    if not 1 <= header.weight <= max_weight:
        raise Refusal(Reason.WEIGHT_RANGE, f"weight must lie between 1 and the task's {max_weight}")


def check_repeats(stored: Update, payload_sha256: bytes) -> None:
    """Refuses UPDATE_RETRACTED, and UPDATE_CONFLICT unless that payload is the one that counts."""
    if stored.is_retracted:
        raise Refusal(
            Reason.UPDATE_RETRACTED,
            "the operator took this device's update out of the round; check in for the next one",
        )
    if stored.payload_sha256 != payload_sha256:
        raise Refusal(
            Reason.UPDATE_CONFLICT,
            "another update of this device already counts in this round; the first one stays",
        )


def repeated(stored: Update, policy: RoundPolicy) -> Receipt:
    return Receipt(update=replace(stored, payload=None), duplicate=True, policy=policy)
