"""Whole rounds of the live service: how they end, what they publish, what follows."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.adapter_files import load_weights
from aggregator_service.app.open_round import OpenRound
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.clock import utc_now
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.assignments import AssignmentState, Evaluation
from aggregator_service.domain.rounds import AbortReason, RoundKind, RoundState
from aggregator_service.domain.tasks import Ending, Task, TaskState
from aggregator_service.domain.updates import UpdateState
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.server_update import Sgd
from flasc_core.wire import DecodeLimits, decode, encode
from tests.builders import a_policy, nonzeros_of
from tests.support.device import SyntheticDevice, encoded_vector
from tests.support.devices import hand_in
from tests.support.live import LiveService
from tests.support.seen import (
    adapters_of,
    assignment_of,
    figures_of,
    rounds_of,
    task_state,
    updates_of,
)

PAYLOAD = encoded_vector(24, {3: 1.0})
LIMITS = DecodeLimits(dim=24, max_nnz=24, max_abs_value=64.0)
COUNTS = {"correct": 3, "total": 4, "loss_sum": 1.5}
# One update closes a round.
ALONE = a_policy(goal=1, quorum=1)
FEDAVG = Sgd(learning_rate=1.0)


def pass_deadline(live: LiveService) -> None:
    """Lets the driver find the current round past its time, and do all that follows from it."""
    live.driver.now = lambda: utc_now() + timedelta(hours=1)
    live.driver.step()
    live.driver.now = utc_now
    live.settle()


def steer(live: LiveService, task: Task, state: TaskState) -> None:
    SteerTask(store=live.store, now=utc_now)(task.id, state)
    live.settle()


def evaluate(device: SyntheticDevice) -> None:
    device.report(device.assignment("a-task"), pb.OUTCOME_EVALUATED, evaluation=COUNTS)


def weights_of(live: LiveService, adapter: Adapter) -> NDArray[np.float32]:
    return load_weights(live.blobs, adapter)


def states_of(live: LiveService, task: Task) -> list[RoundState]:
    return [one.state for one in rounds_of(live.store, task)]


def test_the_goal_publishes_the_next_version(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=2, quorum=2))
    hand_in(live, [{1: 1.0}])
    live.settle()
    assert states_of(live, task) == [RoundState.COLLECTING]
    hand_in(live, [{1: 1.0}])
    live.settle()
    assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.COLLECTING]
    first, second = rounds_of(live.store, task)
    assert first.accepted_updates == 2
    assert first.manifest_sha256 is not None
    assert (second.number, second.base_version) == (2, 1)
    published = adapters_of(live.store, task)[1]
    assert published.round_id == first.id
    assert published.divisor == 2


def test_below_quorum_a_round_is_aborted_and_the_next_starts_from_the_same_version(
    live: LiveService,
) -> None:
    task = live.create_task(policy=a_policy(goal=3, quorum=2))
    late = live.device()
    given = late.assignment("a-task")
    hand_in(live, [{1: 1.0}])
    pass_deadline(live)
    first, second = rounds_of(live.store, task)
    assert first.state is RoundState.ABORTED
    assert first.abort_reason is AbortReason.QUORUM_MISSED
    assert first.accepted_updates is None
    assert second.state is RoundState.COLLECTING
    assert (second.number, second.base_version) == (2, 0)
    assert second.downloads[""] == first.downloads[""]
    assert len(adapters_of(live.store, task)) == 1
    assert assignment_of(live.store, given).state is AssignmentState.EXPIRED
    # What was accepted is dropped, and the ledger says so.
    [update] = updates_of(live.store, first)
    assert update.state is UpdateState.SCRUBBED
    assert update.payload is None
    assert list(live.blobs.keys(f"rounds/{first.id}/")) == []


def test_with_quorum_the_deadline_publishes(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=3, quorum=2))
    late = live.device()
    given = late.assignment("a-task")
    hand_in(live, [{1: 1.0}, {1: 1.0}])
    pass_deadline(live)
    assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.COLLECTING]
    assert adapters_of(live.store, task)[1].divisor == 2
    assert assignment_of(live.store, given).state is AssignmentState.EXPIRED


def test_a_round_that_nobody_came_to_is_tried_again(live: LiveService) -> None:
    task = live.create_task()
    for _ in range(3):
        pass_deadline(live)
    assert [one.base_version for one in rounds_of(live.store, task)] == [0, 0, 0, 0]
    assert states_of(live, task) == [RoundState.ABORTED] * 3 + [RoundState.COLLECTING]


def test_the_last_version_is_evaluated_and_the_task_completed(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=2, quorum=1), ending=Ending(rounds=1))
    devices = [live.device() for _ in range(3)]
    for device in devices[:2]:
        device.submit(device.assignment("a-task"), PAYLOAD)
    live.settle()
    last = live.latest_round(task)
    assert last.kind is RoundKind.EVALUATION
    assert (last.number, last.base_version) == (2, 1)
    evaluate(devices[0])
    live.settle()
    assert task_state(live.store, task) is TaskState.RUNNING
    # Who did not train can evaluate.
    evaluate(devices[2])
    live.settle()
    assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.EVALUATED]
    assert task_state(live.store, task) is TaskState.COMPLETED
    figures = figures_of(live.store, live.latest_round(task))
    assert figures.evaluation == Evaluation(correct=6, total=8, loss_sum=3.0)
    assert len(adapters_of(live.store, task)) == 2


def test_an_evaluation_that_nobody_makes_still_ends_the_task(live: LiveService) -> None:
    task = live.create_task(policy=ALONE, ending=Ending(rounds=1))
    hand_in(live, [{1: 1.0}])
    live.settle()
    pass_deadline(live)
    assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.EVALUATED]
    assert task_state(live.store, task) is TaskState.COMPLETED


def test_the_evaluation_is_of_the_adapter_that_was_published(live: LiveService) -> None:
    task = live.create_task(policy=ALONE, ending=Ending(rounds=1), optimizer=FEDAVG)
    hand_in(live, [{1: 8.0}])
    live.settle()
    device = live.device()
    vector = decode(device.download(device.assignment("a-task")), LIMITS)
    weights = weights_of(live, adapters_of(live.store, task)[1])
    assert vector.values.tobytes() == weights[vector.indices].tobytes()
    assert 1 in vector.indices


def test_without_a_final_evaluation_the_last_round_completes_the_task(live: LiveService) -> None:
    task = live.create_task(policy=ALONE, ending=Ending(rounds=2, final_evaluation=False))
    for expected in (TaskState.RUNNING, TaskState.COMPLETED):
        hand_in(live, [{1: 1.0}])
        live.settle()
        assert task_state(live.store, task) is expected
    assert states_of(live, task) == [RoundState.PUBLISHED] * 2


@pytest.mark.parametrize(("correct", "kind"), [(7, RoundKind.TRAINING), (8, RoundKind.EVALUATION)])
def test_the_target_accuracy_ends_the_training(
    live: LiveService, correct: int, kind: RoundKind
) -> None:
    task = live.create_task(
        policy=a_policy(goal=2, quorum=2), ending=Ending(rounds=9, target_accuracy=0.8)
    )
    # 80 of 100 together, though one device is below and one above.
    for right, total in ((correct, 10), (72, 90)):
        device = live.device()
        counts = {"correct": right, "total": total, "loss_sum": 1.0}
        device.submit(device.assignment("a-task"), PAYLOAD, evaluation=counts)
    live.settle()
    assert live.latest_round(task).kind is kind


def test_a_payload_that_is_damaged_keeps_no_other_task_waiting(live: LiveService) -> None:
    # So large that its payload is a blob.
    head = AdapterLayout(tensors=(TensorSpec(name="head", shape=(40_000,), role=Role.HEAD),))
    whole = Flasc(download_density=1.0, upload_density=1.0)
    broken = live.create_task("broken", policy=ALONE, layout=head, method=whole)
    sound = live.create_task("sound", policy=ALONE)
    device = live.device()
    large = encode(nonzeros_of(np.linspace(1, 2, head.dim, dtype=np.float32)))
    device.submit(device.assignment("broken"), large)
    device.submit(device.assignment("sound"), PAYLOAD)
    (update,) = updates_of(live.store, live.latest_round(broken))
    assert update.payload_key is not None
    live.blobs.delete(update.payload_key)
    live.blobs.put(update.payload_key, bytes(large[:-1]))
    live.settle()
    assert states_of(live, sound)[0] is RoundState.PUBLISHED
    assert states_of(live, broken) == [RoundState.FOLDING]


class TestSteering:
    def test_a_pause_keeps_the_round_and_what_is_on_its_way(self, live: LiveService) -> None:
        task = live.create_task(policy=a_policy(goal=1, quorum=1))
        device = live.device()
        given = device.assignment("a-task")
        steer(live, task, TaskState.PAUSED)
        assert states_of(live, task) == [RoundState.COLLECTING]
        device.submit(given, PAYLOAD)
        live.settle()
        # It is published; the next round waits for the task to go on.
        assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.PENDING]
        steer(live, task, TaskState.RUNNING)
        assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.COLLECTING]

    def test_a_round_that_is_being_opened_does_not_open_in_a_pause(self, live: LiveService) -> None:
        task = live.create_task(policy=ALONE)
        device = live.device()
        given = device.assignment("a-task")
        steer(live, task, TaskState.PAUSED)
        device.submit(given, PAYLOAD)
        live.settle()
        # A driver that looked before the pause, and comes to the end of its work after it.
        assert task.state is TaskState.RUNNING
        OpenRound(store=live.store, blobs=live.blobs, now=utc_now)(task, live.latest_round(task))
        assert states_of(live, task) == [RoundState.PUBLISHED, RoundState.PENDING]

    def test_a_round_that_is_aborted_in_a_pause_is_followed_after_it(
        self, live: LiveService
    ) -> None:
        task = live.create_task()
        steer(live, task, TaskState.PAUSED)
        pass_deadline(live)
        assert states_of(live, task) == [RoundState.ABORTED]
        steer(live, task, TaskState.RUNNING)
        assert states_of(live, task) == [RoundState.ABORTED, RoundState.COLLECTING]

    def test_a_task_that_ends_in_a_pause_is_completed_after_it(self, live: LiveService) -> None:
        task = live.create_task(policy=ALONE, ending=Ending(rounds=1, final_evaluation=False))
        device = live.device()
        given = device.assignment("a-task")
        steer(live, task, TaskState.PAUSED)
        device.submit(given, PAYLOAD)
        live.settle()
        assert states_of(live, task) == [RoundState.PUBLISHED]
        assert task_state(live.store, task) is TaskState.PAUSED
        steer(live, task, TaskState.RUNNING)
        assert task_state(live.store, task) is TaskState.COMPLETED

    def test_cancelling_aborts_the_round_and_nothing_follows(self, live: LiveService) -> None:
        task = live.create_task()
        hand_in(live, [{1: 1.0}])
        open_one = live.device()
        given = open_one.assignment("a-task")
        steer(live, task, TaskState.CANCELLED)
        [only] = rounds_of(live.store, task)
        assert only.state is RoundState.ABORTED
        assert only.abort_reason is AbortReason.OPERATOR
        assert assignment_of(live.store, given).state is AssignmentState.EXPIRED
        assert [one.state for one in updates_of(live.store, only)] == [UpdateState.SCRUBBED]
        live.settle()
        assert len(rounds_of(live.store, task)) == 1
        assert len(adapters_of(live.store, task)) == 1

    def test_a_round_that_the_operator_aborts_is_followed_by_another(
        self, live: LiveService
    ) -> None:
        task = live.create_task()
        hand_in(live, [{1: 1.0}])
        abort = AbortRound(store=live.store, now=utc_now)
        first = live.latest_round(task)
        aborted = abort(first.id)
        assert abort(first.id).ended_at == aborted.ended_at
        live.settle()
        assert states_of(live, task) == [RoundState.ABORTED, RoundState.COLLECTING]
        assert rounds_of(live.store, task)[1].base_version == 0

    def test_one_task_s_end_leaves_the_others_alone(self, live: LiveService) -> None:
        live.create_task("a-task")
        other = live.create_task("other")
        before = rounds_of(live.store, other)
        steer(live, live.create_task("third"), TaskState.CANCELLED)
        hand_in(live, [{1: 1.0}] * 3)
        live.settle()
        assert rounds_of(live.store, other) == before
