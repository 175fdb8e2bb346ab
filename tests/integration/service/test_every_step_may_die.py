"""A process may die at any step without changing the result.

Every effect on the database or the blobs is one place to die in: before it, inside the transaction,
and after it, when the answer is lost. The tests enumerate them until none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.app.fold_updates import LEASE, FoldUpdates
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.domain.assignments import AssignmentState, Evaluation
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from tests.support.crowded_round import CROWD, SHARDS, check_crowd, crowded, fold_and_publish
from tests.support.faults import Moment, Trap, every_trap
from tests.support.one_hot import eager_policy, one_hot_config
from tests.support.one_task import OneTask, Process, in_memory

Worlds = Callable[[Iterable[Trap]], OneTask]
# Of these one hands in a blob, one gives up, and the others keep their payload in the row.
DEVICES = 4


# -- a task's whole life


def live(world: OneTask) -> None:
    """One round of training, one of evaluation, from creation to completion."""
    world.enroll(DEVICES)
    with world.trapped():
        policy = eager_policy(goal=3, over_selection=2.0)
        config = one_hot_config(policy, rounds=1, final_evaluation=True)
        world.do(lambda process: process.create_task(config))
        world.settle()
        give_up(world, number=3)
        world.take_part(0)
        world.take_part(1, as_blob=True)
        world.take_part(2)
        world.settle()
        for number in range(3):
            evaluate(world, number)
        world.settle()


def give_up(world: OneTask, number: int) -> None:
    report(world, number, AssignmentState.ABANDONED, None)


def evaluate(world: OneTask, number: int) -> None:
    counts = Evaluation(correct=3, total=4, loss_sum=1.0)
    report(world, number, AssignmentState.EVALUATED, counts)


def report(
    world: OneTask, number: int, state: AssignmentState, evaluation: Evaluation | None
) -> None:
    device_id = world.devices[number]
    work = world.do(lambda process: process.check_in(device_id))

    def ask(process: Process) -> None:
        use_case = ReportOutcome(store=process.store, now=process.clock)
        use_case(device_id, work.assignment.id, state, evaluation=evaluation)

    world.do(ask)


def check_life(world: OneTask, published: list[bytes]) -> None:
    assert world.task.state is TaskState.COMPLETED
    assert [one.state for one in world.rounds] == [RoundState.PUBLISHED, RoundState.EVALUATED]
    assert [len(world.receipts[one.id]) for one in world.rounds] == [3, 0]
    assert world.published == published
    world.check_conservation()
    world.check_transitions()
    world.check_swept()


@pytest.fixture(scope="module")
def undisturbed() -> list[bytes]:
    """What is published where nobody dies."""
    world = in_memory()
    live(world)
    return world.published


@pytest.mark.parametrize(
    ("worlds", "moment"),
    [
        *(("memory", moment) for moment in Moment),
        # For a database a transaction that never began is like one that was rolled back.
        *(("sqlite", moment) for moment in (Moment.INSIDE, Moment.AFTER)),
    ],
    indirect=["worlds"],
)
def test_a_task_completes_alike_whichever_step_a_process_dies_in(
    worlds: Worlds, undisturbed: list[bytes], moment: Moment
) -> None:
    def play(trap: Trap) -> None:
        world = worlds([trap])
        live(world)
        check_life(world, undisturbed)
        world.close()

    deaths = every_trap(lambda at: Trap(at=at, moment=moment, effects_only=True), play)
    assert deaths > 25


@given(
    deaths=st.lists(
        st.builds(
            Trap,
            at=st.integers(1, 12),
            moment=st.sampled_from(Moment),
            effects_only=st.just(True),
        ),
        min_size=2,
        max_size=12,
    )
)
@settings(max_examples=60)
def test_a_task_completes_alike_though_its_successors_die_too(
    undisturbed: list[bytes], deaths: list[Trap]
) -> None:
    world = in_memory(deaths)
    live(world)
    check_life(world, undisturbed)


# -- a round that several drivers fold


@pytest.mark.parametrize("moment", Moment)
def test_a_round_is_published_alike_whichever_step_its_driver_dies_in(moment: Moment) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        crowded(world)
        fold_and_publish(world)
        check_crowd(world)

    deaths = every_trap(lambda at: Trap(at=at, moment=moment, effects_only=True), play)
    assert deaths > 15


def test_a_slow_driver_commits_long_before_its_lease_ends() -> None:
    """Else two of them would undo each other's work for ever."""
    world = in_memory()
    crowded(world)
    store, collecting = world.untrapped.store, world.rounds[0]

    def slow_clock() -> datetime:
        world.clock.advance(LEASE / 15)
        return world.clock.now

    fold = FoldUpdates(store=store, blobs=world.blobs, now=slow_clock)
    batches = []
    while store.read("test", lambda tx: tx.updates.pending_count(collecting.id)):
        started = world.clock.now
        batches.append(fold(world.task, collecting))
        assert world.clock.now - started < LEASE / 2 * SHARDS
    assert len(batches) > 1
    assert sum(batches) == CROWD - 1
    fold_and_publish(world)
    check_crowd(world)
