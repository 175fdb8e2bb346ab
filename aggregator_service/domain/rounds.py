"""The life of one federated round, as values.

    PENDING ──download ready──▶ COLLECTING ──goal met, or deadline with quorum──▶ CLOSING
                                    │  │                                            │
       deadline without quorum, or  │  └─evaluation round, goal or deadline         │ manifest fixed
             the operator's word    │                  ▼                            ▼
                                    ▼              EVALUATED        PUBLISHED ◀── FOLDING
                                 ABORTED ◀──────── the operator's word, or too few updates

Nothing here reads a clock, a socket or a database. Callers pass the time in and store what comes
back, which is why every rule below can be tested with plain asserts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum, unique
from math import ceil
from types import MappingProxyType
from typing import Final
from uuid import UUID

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role

__all__ = [
    "TRANSITIONS",
    "AbortReason",
    "DownloadFile",
    "Round",
    "RoundKind",
    "RoundPolicy",
    "RoundState",
]


@unique
class RoundState(StrEnum):
    PENDING = "PENDING"
    COLLECTING = "COLLECTING"
    CLOSING = "CLOSING"
    FOLDING = "FOLDING"
    PUBLISHED = "PUBLISHED"
    EVALUATED = "EVALUATED"
    ABORTED = "ABORTED"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Final[Mapping[RoundState, frozenset[RoundState]]] = MappingProxyType(
    {
        RoundState.PENDING: frozenset({RoundState.COLLECTING, RoundState.ABORTED}),
        RoundState.COLLECTING: frozenset(
            {RoundState.CLOSING, RoundState.EVALUATED, RoundState.ABORTED}
        ),
        RoundState.CLOSING: frozenset({RoundState.FOLDING, RoundState.ABORTED}),
        RoundState.FOLDING: frozenset({RoundState.PUBLISHED, RoundState.ABORTED}),
        RoundState.PUBLISHED: frozenset(),
        RoundState.EVALUATED: frozenset(),
        RoundState.ABORTED: frozenset(),
    }
)


@unique
class RoundKind(StrEnum):
    TRAINING = "TRAINING"
    # Devices score the adapter on their held-out examples and send no update.
    EVALUATION = "EVALUATION"


@unique
class AbortReason(StrEnum):
    QUORUM_MISSED = "QUORUM_MISSED"
    OPERATOR = "OPERATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPolicy:
    """How many devices a round wants, and for how long.

    The goal is a level to stop at, not a cap: updates already on their way in when it is reached
    are folded too.
    """

    goal: int
    quorum: int
    window: timedelta
    # Devices assigned at once, as a multiple of the goal.
    over_selection: float = 1.0
    # Fewer distinct devices than this never make an adapter.
    minimum_cohort: int = 1
    # Rounds a device sits out after an accepted update; 0 lets it take part in every round.
    minimum_separation: int = 0
    # Devices that find no work come back after a random time between these two.
    retry_min: timedelta = timedelta(seconds=30)
    retry_max: timedelta = timedelta(seconds=90)

    @property
    def seats(self) -> int:
        return ceil(self.goal * self.over_selection)

    @property
    def least_updates(self) -> int:
        return max(self.quorum, self.minimum_cohort)

    def check(self, largest_cohort: int) -> None:
        """Refuses (CONFIGURATION) a policy that could never publish or never end."""
        problems = {
            "goal must be at least 1": self.goal >= 1,
            "quorum must lie between 1 and goal": 1 <= self.quorum <= self.goal,
            "minimum_cohort must lie between 1 and goal": 1 <= self.minimum_cohort <= self.goal,
            "over_selection must lie between 1 and 10": 1.0 <= self.over_selection <= 10.0,
            "window must lie between 1 second and 30 days": timedelta(seconds=1)
            <= self.window
            <= timedelta(days=30),
            "minimum_separation must not be negative": self.minimum_separation >= 0,
            "retry_min and retry_max must lie in order between 0 and 30 days": timedelta(0)
            <= self.retry_min
            <= self.retry_max
            <= timedelta(days=30),
        }
        for problem, holds in problems.items():
            if not holds:
                raise Refusal(Reason.CONFIGURATION, f"round policy: {problem}")
        if self.seats > largest_cohort:
            raise Refusal(
                Reason.CONFIGURATION,
                f"round policy: goal x over_selection is {self.seats}, more than the task's "
                f"largest_cohort of {largest_cohort}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFile:
    """The encoded adapter that devices of one tier start from."""

    key: str
    sha256: bytes
    size_bytes: int
    nnz: int
    # How the `nnz` values divide; empty for files of before this was counted.
    values_by_role: Mapping[Role, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    id: UUID
    task_id: UUID
    number: int
    kind: RoundKind
    state: RoundState
    policy: RoundPolicy
    # The adapter version that devices download and that updates are relative to.
    base_version: int
    created_at: datetime
    opened_at: datetime | None = None
    closed_at: datetime | None = None
    ended_at: datetime | None = None
    # By tier, "" among them, once devices may download.
    downloads: Mapping[str, DownloadFile] = field(default_factory=dict)
    # Fixed when the round closes: the accepted set is final from then on.
    accepted_updates: int | None = None
    # SHA-256 over the accepted update ids in ledger order.
    manifest_sha256: bytes | None = None
    abort_reason: AbortReason | None = None
    revision: int = 0

    @property
    def index(self) -> int:
        """Rounds as methods count them: one that had to be repeated counts once."""
        return self.base_version

    @property
    def deadline(self) -> datetime | None:
        return None if self.opened_at is None else self.opened_at + self.policy.window

    def admits(self, now: datetime) -> bool:
        """Whether an update that arrives at `now` still counts."""
        deadline = self.deadline
        return self.state is RoundState.COLLECTING and deadline is not None and now < deadline

    def check_admits(self, now: datetime) -> None:
        """Refuses (ROUND_CLOSED) where the round does not admit an update."""
        if not self.admits(now):
            raise Refusal(
                Reason.ROUND_CLOSED,
                "the round takes no more updates; check in for the next one",
                round_id=str(self.id),
            )

    def open(self, now: datetime, downloads: Mapping[str, DownloadFile]) -> Round:
        return replace(self._to(RoundState.COLLECTING), opened_at=now, downloads=downloads)

    def tick(self, now: datetime, reported: int, *, drawn: int | None = None) -> Round:
        """Ends the collecting once `reported` meets the goal or the window has passed.

        A round whose cohort the server drew waits for all of its `drawn` devices, and closes with
        however few have come: what depends on them would tell who was drawn.
        """
        if self.state is not RoundState.COLLECTING or self.deadline is None:
            return self
        enough = self.policy.goal if drawn is None else drawn
        if reported < enough and now < self.deadline:
            return self
        if self.kind is RoundKind.EVALUATION:
            return replace(self._to(RoundState.EVALUATED), closed_at=now, ended_at=now)
        if drawn is None and reported < self.policy.least_updates:
            return self.abort(now, AbortReason.QUORUM_MISSED)
        return replace(self._to(RoundState.CLOSING), closed_at=now, accepted_updates=reported)

    def begin_folding(self, manifest_sha256: bytes) -> Round:
        return replace(self._to(RoundState.FOLDING), manifest_sha256=manifest_sha256)

    def publish(self, now: datetime) -> Round:
        return replace(self._to(RoundState.PUBLISHED), ended_at=now)

    def abort(self, now: datetime, reason: AbortReason) -> Round:
        closed_at = self.closed_at or now
        return replace(
            self._to(RoundState.ABORTED), closed_at=closed_at, ended_at=now, abort_reason=reason
        )

    def _to(self, state: RoundState) -> Round:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"no transition {self.state} -> {state}")
        return replace(self, state=state)
