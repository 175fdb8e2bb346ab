"""A device asks for work: it gets an assignment, a time to come back, or the end of the task."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import pytest

from aggregator_service.app.advance_task import AdvanceTask
from aggregator_service.app.check_in import Assigned, CheckIn, Query, RetryLater
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import Ending, Task, TaskState
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.pb.v1 import task_spec_pb2
from tests.builders import a_config, a_device, a_policy, digest, stored
from tests.integration.service.conftest import Clock
from tests.support.device import SyntheticDevice, details_of, encoded_vector, reason_of
from tests.support.live import LiveService
from tests.support.seen import assignment_of, device_id_of, figures_of, standing_of

PAYLOAD = encoded_vector(24, {3: 1.0})
TICK = timedelta(microseconds=1)


def kind_of(response: pb.CheckInResponse) -> str | None:
    kind: str | None = response.WhichOneof("result")
    return kind


def refused(device: SyntheticDevice, task: str = "a-task", **fields: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        device.check_in(task, **fields)
    return error.value


def steer(live: LiveService, task: Task, state: TaskState) -> None:
    SteerTask(store=live.store, now=utc_now)(task.id, state)
    live.settle()


def test_a_device_is_told_all_that_it_needs(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    current = live.latest_round(task)
    assert current.deadline is not None
    assert given.round_id == current.id.bytes
    assert given.round_number == 1
    assert given.purpose == pb.PURPOSE_TRAIN
    assert given.task_spec == task.spec
    assert given.task_sha256 == sha256(task.spec).digest()
    assert given.download.adapter_version == 0
    assert given.download.sha256 == current.downloads[""].sha256
    assert given.download.size_bytes == current.downloads[""].size_bytes
    assert given.expires_at.ToDatetime(current.deadline.tzinfo) == current.deadline
    # A quarter of 24 coordinates.
    assert [group.count for group in given.upload_rule.groups] == [6]


def test_the_specification_is_the_task_s(live: LiveService) -> None:
    task = live.create_task()
    spec = task_spec_pb2.TaskSpec.FromString(live.device().assignment("a-task").task_spec)
    config = task.config
    assert spec.task_name == "a-task"
    assert spec.layout.fingerprint == config.layout.fingerprint
    assert spec.base_model.sha256 == config.base_model.sha256
    assert spec.training_plan.learning_rate == config.training.learning_rate
    assert spec.training_plan.momentum == config.training.momentum
    assert spec.training_plan.batch_size == config.training.batch_size
    assert spec.peft_config_json == config.peft_config_json
    assert spec.max_abs_value == config.limits.max_abs_value
    assert spec.max_weight == 1


def test_a_device_that_asks_again_gets_the_same_assignment(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    first, second = device.assignment("a-task"), device.assignment("a-task")
    assert first == second
    assert first.training_seed == second.training_seed
    states = figures_of(live.store, live.latest_round(task)).assignments
    assert sum(states.values()) == 1


def test_each_device_has_an_assignment_of_its_own(live: LiveService) -> None:
    live.create_task()
    first, second = (live.device().assignment("a-task") for _ in range(2))
    assert first.assignment_id != second.assignment_id
    assert first.training_seed != second.training_seed


def test_a_device_that_knows_the_specification_is_not_sent_it_again(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.check_in("a-task", known_task_sha256=task.spec_sha256).assignment
    assert given.task_spec == b""
    assert given.task_sha256 == task.spec_sha256


def test_a_device_that_knows_another_specification_is_sent_this_one(live: LiveService) -> None:
    task = live.create_task()
    given = live.device().check_in("a-task", known_task_sha256=digest("other")).assignment
    assert given.task_spec == task.spec


def test_a_device_with_the_task_s_model_is_welcome(live: LiveService) -> None:
    config = live.create_task().config
    response = live.device().check_in(
        "a-task",
        layout_fingerprint=config.layout.fingerprint,
        base_model_sha256=config.base_model.sha256,
        client_version="test/1",
    )
    assert kind_of(response) == "assignment"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("layout_fingerprint", Reason.LAYOUT_MISMATCH),
        ("base_model_sha256", Reason.BASE_MODEL_MISMATCH),
    ],
)
def test_a_device_with_another_model_hears_so_before_it_trains(
    live: LiveService, field: str, reason: Reason
) -> None:
    task = live.create_task()
    before = standing_of(live.store, live.latest_round(task))
    fields: dict[str, Any] = {field: digest("another model")}
    error = refused(live.device(), **fields)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) is reason
    config = task.config
    expected = {config.layout.fingerprint.hex(), config.base_model.sha256.hex()}
    assert details_of(error).metadata["expected"] in expected
    assert standing_of(live.store, live.latest_round(task)) == before


def test_a_task_that_does_not_exist_is_not_found(live: LiveService) -> None:
    error = refused(live.device(), "no-such-task")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error) is Reason.TASK_UNKNOWN


def test_while_a_task_is_paused_devices_wait(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    steer(live, task, TaskState.PAUSED)
    assert kind_of(device.check_in("a-task")) == "retry_window"
    steer(live, task, TaskState.RUNNING)
    assert kind_of(device.check_in("a-task")) == "assignment"


def test_a_pause_leaves_a_device_the_assignment_that_it_has(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    steer(live, task, TaskState.PAUSED)
    assert device.assignment("a-task") == given


def test_of_a_cancelled_task_devices_hear_the_end(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    device.assignment("a-task")
    steer(live, task, TaskState.CANCELLED)
    response = device.check_in("a-task")
    assert kind_of(response) == "finished"
    assert response.finished.final_version == 0


def test_of_a_completed_task_devices_hear_its_last_version(live: LiveService) -> None:
    policy = a_policy(goal=1, quorum=1)
    live.create_task(policy=policy, ending=Ending(rounds=1, final_evaluation=False))
    device = live.device()
    device.submit(device.assignment("a-task"), PAYLOAD)
    live.settle()
    response = device.check_in("a-task")
    assert kind_of(response) == "finished"
    assert response.finished.final_version == 1


def test_a_round_has_as_many_places_as_its_policy_says(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=2, quorum=1, over_selection=1.5))
    devices = [live.device() for _ in range(4)]
    kinds = [kind_of(device.check_in("a-task")) for device in devices]
    assert kinds == ["assignment"] * 3 + ["retry_window"]
    # Who has a place keeps it, however often the others ask.
    assert kind_of(devices[0].check_in("a-task")) == "assignment"
    assert kind_of(devices[3].check_in("a-task")) == "retry_window"
    states = figures_of(live.store, live.latest_round(task)).assignments
    assert sum(states.values()) == 3


def test_a_place_is_free_again_once_a_device_has_given_up(live: LiveService) -> None:
    live.create_task(policy=a_policy(goal=1, quorum=1, over_selection=1.0))
    first, second = live.device(), live.device()
    given = first.assignment("a-task")
    assert kind_of(second.check_in("a-task")) == "retry_window"
    first.report(given, pb.OUTCOME_GAVE_UP)
    assert kind_of(second.check_in("a-task")) == "assignment"


def test_who_gave_up_gets_no_second_try_in_the_same_round(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    device.report(device.assignment("a-task"), pb.OUTCOME_GAVE_UP)
    assert kind_of(device.check_in("a-task")) == "retry_window"


def test_who_handed_in_waits_for_the_next_round(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=2, quorum=1))
    first, second = live.device(), live.device()
    first.submit(first.assignment("a-task"), PAYLOAD)
    assert kind_of(first.check_in("a-task")) == "retry_window"
    second.submit(second.assignment("a-task"), PAYLOAD)
    live.settle()
    assert live.latest_round(task).number == 2
    assert kind_of(first.check_in("a-task")) == "assignment"


def finish_round(live: LiveService, device: SyntheticDevice) -> None:
    device.submit(device.assignment("a-task"), PAYLOAD)
    live.settle()


@pytest.mark.parametrize("separation", [1, 2])
def test_a_device_sits_out_the_rounds_of_the_minimum_separation(
    live: LiveService, separation: int
) -> None:
    policy = a_policy(goal=1, quorum=1, minimum_separation=separation)
    live.create_task(policy=policy, ending=Ending(rounds=9))
    regular, *others = (live.device() for _ in range(separation + 1))
    finish_round(live, regular)
    for other in others:
        assert kind_of(regular.check_in("a-task")) == "retry_window"
        finish_round(live, other)
    assert kind_of(regular.check_in("a-task")) == "assignment"


def test_a_device_that_gave_up_need_not_rest(live: LiveService) -> None:
    policy = a_policy(goal=1, quorum=1, minimum_separation=1, over_selection=2.0)
    live.create_task(policy=policy, ending=Ending(rounds=9))
    tired, other = live.device(), live.device()
    tired.report(tired.assignment("a-task"), pb.OUTCOME_FAILED)
    finish_round(live, other)
    assert kind_of(tired.check_in("a-task")) == "assignment"


def test_resting_devices_still_evaluate(live: LiveService) -> None:
    policy = a_policy(goal=1, quorum=1, minimum_separation=5)
    live.create_task(policy=policy, ending=Ending(rounds=1))
    device = live.device()
    finish_round(live, device)
    assert device.assignment("a-task").purpose == pb.PURPOSE_EVALUATE


def test_the_time_to_come_back_is_the_task_s(live: LiveService) -> None:
    policy = a_policy(
        goal=1,
        quorum=1,
        over_selection=1.0,
        retry_min=timedelta(milliseconds=1_500),
        retry_max=timedelta(hours=2),
    )
    live.create_task(policy=policy)
    live.device().assignment("a-task")
    window = live.device().check_in("a-task").retry_window
    assert window.delay_min.ToTimedelta() == timedelta(milliseconds=1_500)
    assert window.delay_max.ToTimedelta() == timedelta(hours=2)


def test_before_its_round_is_open_devices_wait(live: LiveService) -> None:
    config = a_config()
    weights = np.ones(config.layout.dim, dtype=np.float32)
    task = CreateTask(store=live.store, blobs=live.blobs, now=utc_now)("fresh", config, weights)
    device = live.device()
    assert live.latest_round(task).state is RoundState.PENDING
    assert kind_of(device.check_in("fresh")) == "retry_window"
    live.settle()
    assert kind_of(device.check_in("fresh")) == "assignment"


def test_a_device_may_take_part_in_two_tasks_at_once(live: LiveService) -> None:
    live.create_task("one")
    live.create_task("other")
    device = live.device()
    first, second = device.assignment("one"), device.assignment("other")
    assert first.assignment_id != second.assignment_id
    assert first.round_id != second.round_id


def test_an_assignment_is_the_device_s_and_training(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    assignment = assignment_of(live.store, device.assignment("a-task"))
    assert assignment.device_id == device_id_of(device)
    assert assignment.state == "TRAINING"


class TestTime:
    """Past its deadline a round that nobody has closed yet gives no work."""

    @pytest.fixture
    def check_in(self, sqlite_store: Store, blobs: BlobStore, clock: Clock) -> CheckIn:
        config = a_config()
        weights = np.ones(config.layout.dim, dtype=np.float32)
        task = CreateTask(store=sqlite_store, blobs=blobs, now=clock)("a-task", config, weights)
        AdvanceTask(store=sqlite_store, blobs=blobs, now=clock)(task.id)
        return CheckIn(store=sqlite_store, now=clock)

    @pytest.mark.parametrize(
        ("waited", "kind"),
        [(timedelta(minutes=10) - TICK, Assigned), (timedelta(minutes=10), RetryLater)],
    )
    def test_work_is_given_until_the_deadline(
        self, check_in: CheckIn, clock: Clock, waited: timedelta, kind: type
    ) -> None:
        device = a_device()
        stored(check_in.store, device)
        clock.move(waited)
        assert isinstance(check_in(device.id, Query(task_name="a-task")), kind)

    def test_at_the_deadline_an_assignment_is_not_given_again(
        self, check_in: CheckIn, clock: Clock
    ) -> None:
        device = a_device()
        stored(check_in.store, device)
        query = Query(task_name="a-task")
        first = check_in(device.id, query)
        clock.move(timedelta(minutes=10) - TICK)
        assert check_in(device.id, query) == first
        clock.move(TICK)
        assert isinstance(check_in(device.id, query), RetryLater)


def test_a_stranger_s_device_id_is_not_taken_from_the_message(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    # Identity comes with the credential; what else a message says is not read.
    unknown_field = b"\x9a\x06\x10" + uuid4().bytes
    data = pb.CheckInRequest(task_name="a-task").SerializeToString() + unknown_field
    answer = pb.CheckInResponse.FromString(device.call_bytes("CheckIn", data))
    found = assignment_of(live.store, answer.assignment)
    assert found.device_id == device_id_of(device)
