"""Somebody else may do anything between any two steps of a driver or of an upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.check_in import Assigned
from aggregator_service.app.fold_updates import LEASE
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.tasks import TaskState
from flasc_core.errors import Reason, Refusal
from tests.support.crowded_round import check_crowd, crowded, fold_and_publish
from tests.support.faults import Trap, every_trap
from tests.support.one_hot import eager_policy, one_hot, one_hot_config
from tests.support.one_task import OneTask, in_memory, update_header


@pytest.mark.parametrize("pause", [LEASE / 2, LEASE], ids=["lease held", "lease lost"])
def test_a_driver_may_do_everything_between_any_two_calls_of_another(pause: timedelta) -> None:
    """As when a process is paused, its leases run out, and it goes on as if nothing had been."""

    def play(trap: Trap) -> None:
        world = in_memory([trap])

        def rival() -> None:
            world.clock.advance(pause)
            world.untrapped.settle()

        trap.action = rival
        crowded(world)
        fold_and_publish(world)
        world.clock.advance(LEASE)
        world.untrapped.settle()
        check_crowd(world)

    assert every_trap(lambda at: Trap(at=at), play) > 30


def abort(world: OneTask) -> None:
    AbortRound(store=world.untrapped.store, now=world.clock)(world.rounds[0].id)


def cancel(world: OneTask) -> None:
    steer = SteerTask(store=world.untrapped.store, now=world.clock)
    steer(world.task.id, TaskState.CANCELLED)


@pytest.mark.parametrize("interfere", [abort, cancel])
@pytest.mark.parametrize("settles", [False, True], ids=["alone", "with a driver"])
def test_an_operator_may_end_a_round_between_any_two_calls_of_its_driver(
    interfere: Callable[[OneTask], None], settles: bool
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])

        def rival() -> None:
            interfere(world)
            if settles:
                world.untrapped.settle()

        trap.action = rival
        crowded(world)
        with world.trapped():
            world.settle()
        world.untrapped.settle()
        world.check_conservation()
        world.check_transitions()

    assert every_trap(lambda at: Trap(at=at), play) > 10


def hand_in_again(world: OneTask, work: Assigned) -> None:
    """The same device over another connection, after it gave the first one up."""
    world.receipts[work.round.id][0] = world.untrapped.submit(
        world.devices[0], work, one_hot(0, as_blob=True)
    )


def hand_in_again_and_settle(world: OneTask, work: Assigned) -> None:
    hand_in_again(world, work)
    world.untrapped.settle()


def hand_in_another(world: OneTask, work: Assigned) -> None:
    """A device that breaks the rules; whichever comes first counts."""
    with refused(Reason.UPDATE_CONFLICT):
        update_id = world.untrapped.submit(world.devices[0], work, one_hot(0))
        world.receipts[work.round.id][0] = update_id


def give_up_meanwhile(world: OneTask, work: Assigned) -> None:
    use_case = ReportOutcome(store=world.untrapped.store, now=world.clock)
    use_case(world.devices[0], work.assignment.id, AssignmentState.ABANDONED)


def reach_the_goal(world: OneTask, work: Assigned) -> None:
    other = world.untrapped.check_in(world.devices[1])
    update_id = world.untrapped.submit(world.devices[1], other, one_hot(1, as_blob=True))
    world.receipts[work.round.id][1] = update_id
    world.untrapped.settle()


def abort_meanwhile(world: OneTask, work: Assigned) -> None:
    del work
    abort(world)
    world.untrapped.settle()


def let_time_run_out(world: OneTask, work: Assigned) -> None:
    world.clock.advance(work.round.policy.window)
    world.untrapped.settle()


@contextmanager
def refused(*reasons: Reason) -> Iterator[None]:
    """Lets a refusal pass, if it is one of these."""
    try:
        yield
    except Refusal as refusal:
        if refusal.reason not in reasons:
            raise


@pytest.mark.parametrize(
    ("interfere", "reasons"),
    [
        (hand_in_again, []),
        (hand_in_again_and_settle, []),
        (hand_in_another, [Reason.UPDATE_CONFLICT]),
        (give_up_meanwhile, [Reason.ASSIGNMENT_EXPIRED]),
        (reach_the_goal, [Reason.ROUND_CLOSED]),
        (abort_meanwhile, [Reason.ROUND_CLOSED]),
        (let_time_run_out, [Reason.ROUND_CLOSED]),
    ],
)
def test_what_is_acknowledged_counts_whoever_comes_between_the_steps_of_an_upload(
    interfere: Callable[[OneTask, Assigned], None], reasons: list[Reason]
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        world.enroll(2)
        config = one_hot_config(eager_policy(goal=1, over_selection=2.0), rounds=1)
        world.untrapped.create_task(config)
        world.untrapped.settle()
        work = world.untrapped.check_in(world.devices[0])
        trap.action = lambda: interfere(world, work)
        with world.trapped(), refused(*reasons):
            world.hand_in(0, work, one_hot(0, as_blob=True))
        world.untrapped.settle()
        world.check_conservation()
        world.check_transitions()
        world.check_swept()

    assert every_trap(lambda at: Trap(at=at), play) >= 4


def test_a_retry_that_comes_too_late_leaves_the_payload_of_the_first_attempt() -> None:
    """Both attempts stored the same bytes; the second one is refused before the first commits."""
    world = in_memory()
    world.enroll(1)
    config = one_hot_config(eager_policy(goal=1), rounds=1)
    world.untrapped.create_task(config)
    world.untrapped.settle()
    work = world.untrapped.check_in(world.devices[0])
    payload = one_hot(0, as_blob=True)

    def retry_too_late() -> None:
        before, deadline = world.clock.now, work.assignment.expires_at
        # Time runs out while this attempt's payload is decoded.
        clock = iter([before, deadline])
        use_case = SubmitUpdate(
            store=world.untrapped.store, blobs=world.blobs, now=lambda: next(clock)
        )
        with pytest.raises(Refusal, match="takes no more updates"):
            use_case(world.devices[0], update_header(work, payload), payload)

    world.traps = iter([Trap(at="submit_update", action=retry_too_late)])
    with world.trapped():
        world.hand_in(0, work, payload)
    world.untrapped.settle()
    assert world.task.state is TaskState.COMPLETED
    world.check_conservation()
