"""A device's part in a round: open until it ends, and ended once."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest

from aggregator_service.domain.assignments import AssignmentState
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW, SECOND, an_assignment, some_counts, some_training

State = AssignmentState
# What an assignment can end as by itself, and where it can be after that.
ENDINGS = sorted(set(State) - {State.TRAINING, State.RETRACTED})
ENDED = sorted({*ENDINGS, State.RETRACTED})


def test_an_assignment_is_open_until_just_before_it_expires() -> None:
    an_assignment(expires_at=NOW + SECOND).check_open(NOW + SECOND - timedelta(microseconds=1))


def test_an_assignment_is_over_when_it_expires() -> None:
    assignment = an_assignment(expires_at=NOW + SECOND)
    with pytest.raises(Refusal) as refused:
        assignment.check_open(NOW + SECOND)
    assert refused.value.reason is Reason.ASSIGNMENT_EXPIRED
    assert refused.value.facts["assignment_id"] == str(assignment.id)


@pytest.mark.parametrize("state", ENDED)
def test_an_assignment_that_has_ended_is_not_open(state: AssignmentState) -> None:
    with pytest.raises(Refusal) as refused:
        an_assignment(state=state).check_open(NOW)
    assert refused.value.reason is Reason.ASSIGNMENT_EXPIRED


@pytest.mark.parametrize("state", ENDINGS)
def test_ending_keeps_what_the_device_said(state: AssignmentState) -> None:
    ended = an_assignment().end(
        state,
        NOW + SECOND,
        detail="battery",
        training_metrics=some_training(),
        evaluation=some_counts(),
    )
    assert ended.state is state
    assert ended.ended_at == NOW + SECOND
    assert ended.detail == "battery"
    assert ended.training_metrics == some_training()
    assert ended.evaluation == some_counts()


@pytest.mark.parametrize(("first", "second"), list(product(ENDED, State)))
def test_what_has_ended_does_not_end_again(first: AssignmentState, second: AssignmentState) -> None:
    ended = an_assignment(state=first)
    with pytest.raises(AssertionError, match="no transition"):
        ended.end(second, NOW)


@pytest.mark.parametrize("state", [State.TRAINING, State.RETRACTED])
def test_training_and_a_retraction_are_no_ways_to_end(state: AssignmentState) -> None:
    with pytest.raises(AssertionError, match="no transition"):
        an_assignment().end(state, NOW)


def test_a_retraction_says_why_and_keeps_nothing_that_the_device_said() -> None:
    accepted = an_assignment().end(
        State.ACCEPTED, NOW, training_metrics=some_training(), evaluation=some_counts()
    )

    retracted = accepted.retract(NOW + SECOND, "consent withdrawn")

    assert (retracted.state, retracted.detail) == (State.RETRACTED, "consent withdrawn")
    assert retracted.ended_at == NOW + SECOND
    assert retracted.training_metrics is None
    assert retracted.evaluation is None


@pytest.mark.parametrize("state", sorted(set(State) - {State.ACCEPTED}))
def test_only_an_accepted_assignment_is_retracted(state: AssignmentState) -> None:
    with pytest.raises(AssertionError, match="no transition"):
        an_assignment(state=state).retract(NOW, "a reason")
