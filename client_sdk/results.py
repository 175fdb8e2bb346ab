"""What one step and a whole run come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

__all__ = ["StepOutcome", "StepResult", "Summary"]


@unique
class StepOutcome(StrEnum):
    """How one check-in cycle ended.

    REFUSED is an assignment that ended for the service's reason, FAILED one that ended for the
    device's own; STOPPED follows stop().
    """

    UPDATED = "UPDATED"
    EVALUATED = "EVALUATED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    NO_WORK = "NO_WORK"
    FINISHED = "FINISHED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """`wait_seconds` is when the next step makes sense, counted from now."""

    outcome: StepOutcome
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Totals since the state folder was made; `finished` speaks of the task.

    `payload_bytes_sent` counts update payloads in every attempt to hand one in,
    `payload_bytes_received` all download data that arrived.
    """

    finished: bool
    updates_accepted: int
    evaluations_reported: int
    payload_bytes_sent: int
    payload_bytes_received: int
