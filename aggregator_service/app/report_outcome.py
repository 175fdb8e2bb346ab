"""A device says how its assignment ended where no update follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.app.own_assignment import own_assignment
from aggregator_service.domain.assignments import AssignmentState, Evaluation
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import RoundKind, RoundPolicy
from aggregator_service.store.base import Lock, Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["ReportOutcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOutcome:
    store: Store
    now: Callable[[], datetime]

    def __call__(
        self,
        device_id: UUID,
        assignment_id: UUID,
        state: AssignmentState,
        *,
        detail: str = "",
        evaluation: Evaluation | None = None,
    ) -> RoundPolicy:
        """Ends the assignment as `state`: ABANDONED, FAILED or EVALUATED.

        An assignment that has ended stays as it is, so repeating is harmless. Refuses
        ASSIGNMENT_UNKNOWN; for EVALUATED also FIELD_REQUIRED without counts, ASSIGNMENT_EXPIRED
        for one that ended otherwise, and FIELD_RANGE outside an evaluation round.
        """
        now = self.now()

        def body(tx: Transaction) -> RoundPolicy:
            assignment = own_assignment(tx, device_id, assignment_id)
            current = tx.rounds.get(assignment.round_id, Lock.SHARED)
            if current is None:
                raise AssertionError("rounds are never removed")
            evaluated = state is AssignmentState.EVALUATED
            if evaluated:
                _check_evaluation(current.kind, evaluation)
            if evaluated and assignment.state is not AssignmentState.EVALUATED:
                assignment.check_open(now)
            if assignment.state is not AssignmentState.TRAINING:
                return current.policy
            tx.assignments.save(assignment.end(state, now, detail=detail, evaluation=evaluation))
            if not evaluated:
                tx.rounds.free_seats(current.id, 1)
            tx.events.append(
                Event(task_id=current.task_id, round_id=current.id, state=current.state, at=now)
            )
            return current.policy

        return self.store.run("report_outcome", body)


def _check_evaluation(kind: RoundKind, evaluation: Evaluation | None) -> None:
    if kind is not RoundKind.EVALUATION:
        raise Refusal(
            Reason.FIELD_RANGE, "this round trains; send an update, or report why there is none"
        )
    if evaluation is None:
        raise Refusal(Reason.FIELD_REQUIRED, "OUTCOME_EVALUATED needs the evaluation's counts")
