"""A device says how its assignment ended where no update follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest

from aggregator_service.clock import utc_now
from aggregator_service.domain.assignments import AssignmentState, Evaluation
from aggregator_service.domain.tasks import Ending, Task
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.builders import a_policy
from tests.support.device import SyntheticDevice, encoded_vector, reason_of
from tests.support.live import LiveService
from tests.support.seen import assignment_of, figures_of, standing_of, updates_of

State = AssignmentState
PAYLOAD = encoded_vector(24, {3: 1.0})
COUNTS = {"correct": 3, "total": 4, "loss_sum": 1.5}


def refused(
    device: SyntheticDevice, given: pb.Assignment, outcome: pb.Outcome, **fields: Any
) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        device.report(given, outcome, **fields)
    return error.value


def an_evaluation_round(live: LiveService, *, goal: int = 2) -> tuple[Task, list[SyntheticDevice]]:
    """A task whose last round is open, and the devices that trained."""
    task = live.create_task(
        policy=a_policy(goal=goal, quorum=1, over_selection=1.0), ending=Ending(rounds=1)
    )
    devices = [live.device() for _ in range(goal)]
    for device in devices:
        device.submit(device.assignment("a-task"), PAYLOAD)
    live.settle()
    return task, devices


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(pb.OUTCOME_GAVE_UP, State.ABANDONED), (pb.OUTCOME_FAILED, State.FAILED)],
)
def test_what_a_device_says_is_kept_for_the_operator(
    live: LiveService, outcome: pb.Outcome, state: AssignmentState
) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    device.report(given, outcome, detail="battery at 3 %")
    ended = assignment_of(live.store, given)
    assert ended.state is state
    assert ended.detail == "battery at 3 %"
    assert ended.ended_at is not None


@pytest.mark.parametrize("outcome", [pb.OUTCOME_GAVE_UP, pb.OUTCOME_FAILED])
def test_its_place_is_another_device_s(live: LiveService, outcome: pb.Outcome) -> None:
    live.create_task(policy=a_policy(goal=1, quorum=1, over_selection=1.0))
    first, second = live.device(), live.device()
    given = first.assignment("a-task")
    assert second.check_in("a-task").WhichOneof("result") == "retry_window"
    first.report(given, outcome)
    second.assignment("a-task")


def test_saying_so_again_changes_nothing_and_frees_no_second_place(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=1, quorum=1, over_selection=1.0))
    first, second, third = (live.device() for _ in range(3))
    given = first.assignment("a-task")
    first.report(given, pb.OUTCOME_GAVE_UP, detail="first")
    before = standing_of(live.store, live.latest_round(task))
    first.report(given, pb.OUTCOME_GAVE_UP, detail="second")
    first.report(given, pb.OUTCOME_FAILED, detail="third")
    assert standing_of(live.store, live.latest_round(task)) == before
    second.assignment("a-task")
    assert third.check_in("a-task").WhichOneof("result") == "retry_window"


def test_the_answer_says_when_to_come_back(live: LiveService) -> None:
    live.create_task(policy=a_policy(retry_min=timedelta(seconds=7)))
    device = live.device()
    request = pb.ReportOutcomeRequest(
        assignment_id=device.assignment("a-task").assignment_id, outcome=pb.OUTCOME_GAVE_UP
    )
    answer = device.call_bytes("ReportOutcome", request.SerializeToString())
    window = pb.ReportOutcomeResponse.FromString(answer).retry_window
    assert window.delay_min.ToTimedelta() == timedelta(seconds=7)


def test_an_accepted_update_is_never_undone(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    device.submit(given, PAYLOAD)
    before = standing_of(live.store, live.latest_round(task))
    device.report(given, pb.OUTCOME_GAVE_UP)
    device.report(given, pb.OUTCOME_FAILED)
    assert standing_of(live.store, live.latest_round(task)) == before
    assert assignment_of(live.store, given).state is State.ACCEPTED


def test_who_gave_up_can_not_hand_in(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    device.report(given, pb.OUTCOME_GAVE_UP)
    with pytest.raises(grpc.RpcError) as error:
        device.submit(given, PAYLOAD)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error.value) is Reason.ASSIGNMENT_EXPIRED
    assert updates_of(live.store, live.latest_round(task)) == []


def test_of_a_round_that_is_over_giving_up_is_no_news(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    live.driver.now = lambda: utc_now() + timedelta(hours=1)
    live.driver.step()
    device.report(given, pb.OUTCOME_GAVE_UP)
    assert assignment_of(live.store, given).state is State.EXPIRED


@pytest.mark.parametrize("outcome", [pb.OUTCOME_GAVE_UP, pb.OUTCOME_FAILED, pb.OUTCOME_EVALUATED])
def test_nobody_speaks_for_another_device(live: LiveService, outcome: pb.Outcome) -> None:
    task = live.create_task()
    owner, stranger = live.device(), live.device()
    given = owner.assignment("a-task")
    before = standing_of(live.store, live.latest_round(task))
    error = refused(stranger, given, outcome, evaluation=COUNTS)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error) is Reason.ASSIGNMENT_UNKNOWN
    assert standing_of(live.store, live.latest_round(task)) == before


@pytest.mark.parametrize("length", [500, 501])
def test_a_detail_has_at_most_500_characters(live: LiveService, length: int) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    if length > 500:
        error = refused(device, given, pb.OUTCOME_FAILED, detail="é" * length)
        assert reason_of(error) is Reason.FIELD_RANGE
        assert assignment_of(live.store, given).state is State.TRAINING
        return
    device.report(given, pb.OUTCOME_FAILED, detail="é" * length)
    assert assignment_of(live.store, given).detail == "é" * length


def test_a_training_round_takes_no_evaluation_for_an_ending(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    before = standing_of(live.store, live.latest_round(task))
    error = refused(device, given, pb.OUTCOME_EVALUATED, evaluation=COUNTS)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) is Reason.FIELD_RANGE
    assert standing_of(live.store, live.latest_round(task)) == before


def test_an_evaluation_round_takes_counts(live: LiveService) -> None:
    task, devices = an_evaluation_round(live)
    given = devices[0].assignment("a-task")
    assert given.purpose == pb.PURPOSE_EVALUATE
    devices[0].report(given, pb.OUTCOME_EVALUATED, evaluation=COUNTS)
    ended = assignment_of(live.store, given)
    assert ended.state is State.EVALUATED
    assert ended.evaluation == Evaluation(correct=3, total=4, loss_sum=1.5)
    figures = figures_of(live.store, live.latest_round(task))
    assert figures.evaluation == Evaluation(correct=3, total=4, loss_sum=1.5)


def test_an_evaluation_that_is_sent_again_counts_once(live: LiveService) -> None:
    task, devices = an_evaluation_round(live)
    given = devices[0].assignment("a-task")
    for counts in (COUNTS, COUNTS, {"correct": 0, "total": 9, "loss_sum": 0.0}):
        devices[0].report(given, pb.OUTCOME_EVALUATED, evaluation=counts)
    figures = figures_of(live.store, live.latest_round(task))
    assert figures.evaluation == Evaluation(correct=3, total=4, loss_sum=1.5)
    assert figures.assignments[State.EVALUATED] == 1


def test_an_evaluation_without_counts_is_refused(live: LiveService) -> None:
    task, devices = an_evaluation_round(live)
    given = devices[0].assignment("a-task")
    before = standing_of(live.store, live.latest_round(task))
    error = refused(devices[0], given, pb.OUTCOME_EVALUATED)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) is Reason.FIELD_REQUIRED
    assert standing_of(live.store, live.latest_round(task)) == before


def test_who_gave_up_in_an_evaluation_round_has_not_evaluated(live: LiveService) -> None:
    _, devices = an_evaluation_round(live)
    given = devices[0].assignment("a-task")
    devices[0].report(given, pb.OUTCOME_GAVE_UP)
    error = refused(devices[0], given, pb.OUTCOME_EVALUATED, evaluation=COUNTS)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) is Reason.ASSIGNMENT_EXPIRED
    assert assignment_of(live.store, given).state is State.ABANDONED


def test_an_evaluation_round_takes_no_updates(live: LiveService) -> None:
    task, devices = an_evaluation_round(live)
    given = devices[0].assignment("a-task")
    with pytest.raises(grpc.RpcError) as error:
        devices[0].submit(given, PAYLOAD)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error.value) is Reason.ROUND_CLOSED
    assert updates_of(live.store, live.latest_round(task)) == []
    assert assignment_of(live.store, given).state is State.TRAINING


def test_devices_that_evaluate_keep_their_places(live: LiveService) -> None:
    _, devices = an_evaluation_round(live)
    late = live.device()
    for device in devices:
        device.report(device.assignment("a-task"), pb.OUTCOME_EVALUATED, evaluation=COUNTS)
    assert late.check_in("a-task").WhichOneof("result") == "retry_window"


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"correct": 5, "total": 4}, Reason.FIELD_RANGE),
        ({"correct": 1, "total": 2**32 + 1}, Reason.FIELD_RANGE),
        ({"correct": 1, "total": 4, "loss_sum": 1.1e100}, Reason.FIELD_RANGE),
        ({"correct": 1, "total": 4, "loss_sum": -1.1e100}, Reason.FIELD_RANGE),
        ({"correct": 1, "total": 4, "loss_sum": float("nan")}, Reason.NON_FINITE),
        ({"correct": 1, "total": 4, "loss_sum": float("inf")}, Reason.NON_FINITE),
    ],
)
def test_counts_that_can_not_be_are_refused(
    live: LiveService, counts: dict[str, float], reason: Reason
) -> None:
    task, devices = an_evaluation_round(live, goal=1)
    given = devices[0].assignment("a-task")
    before = standing_of(live.store, live.latest_round(task))
    error = refused(devices[0], given, pb.OUTCOME_EVALUATED, evaluation=counts)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) is reason
    assert standing_of(live.store, live.latest_round(task)) == before


def test_the_largest_counts_of_a_cohort_can_be_added_up(live: LiveService) -> None:
    task, devices = an_evaluation_round(live, goal=3)
    largest = {"correct": 2**32, "total": 2**32, "loss_sum": 1e100}
    for device in devices:
        device.report(device.assignment("a-task"), pb.OUTCOME_EVALUATED, evaluation=largest)
    live.settle()
    figures = figures_of(live.store, live.latest_round(task))
    assert figures.evaluation is not None
    assert figures.evaluation.total == 3 * 2**32
    assert devices[0].check_in("a-task").WhichOneof("result") == "finished"
