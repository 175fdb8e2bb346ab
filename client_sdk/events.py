"""What a participant tells its app while it works. Byte counts are of payloads, not of sockets."""

from __future__ import annotations

from dataclasses import dataclass

from client_sdk.trainer import Evaluation

__all__ = [
    "CheckedIn",
    "Downloaded",
    "Evaluated",
    "Event",
    "Failed",
    "Finished",
    "Refused",
    "Retrying",
    "Trained",
    "TrainingProgressed",
    "UploadResumed",
    "Uploaded",
    "Waiting",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedIn:
    """The service gave an assignment; with `evaluates_only` there is nothing to train."""

    round_number: int
    adapter_version: int
    download_bytes: int
    evaluates_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """The adapter is here. `payload_bytes` crossed the network now; a resumed part did before."""

    round_number: int
    payload_bytes: int
    nonzeros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The downloaded adapter was scored on the device's own held-out examples."""

    round_number: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgressed:
    """One local step is done."""

    step: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Local training is over and its update is safe on disk."""

    round_number: int
    examples: int
    steps: int
    loss_mean: float
    seconds: float
    nonzeros: int
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadResumed:
    """An earlier attempt left `durable_bytes` of the update's `payload_bytes` with the service."""

    round_number: int
    durable_bytes: int
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """The service gave a receipt; with `duplicate` it had accepted the update before."""

    round_number: int
    payload_bytes: int
    update_id: bytes
    ledger_sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """A call failed in a way that trying again can mend."""

    call: str
    attempt: int
    delay_seconds: float
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The assignment ended without an update, for the service's reason."""

    round_number: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The device's own work on an assignment failed; `detail` is what the operator is told."""

    round_number: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Nothing happens until the service's retry window."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The task takes no more updates."""

    final_version: int


Event = (
    CheckedIn
    | Downloaded
    | Evaluated
    | TrainingProgressed
    | Trained
    | UploadResumed
    | Uploaded
    | Retrying
    | Refused
    | Failed
    | Waiting
    | Finished
)
