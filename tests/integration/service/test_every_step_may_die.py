"""A process may die at any step, and anybody may come between any two, without changing the result.

Every effect on the database or the blobs is one place to die in: before it, inside the transaction,
and after it, when the answer is lost. The tests enumerate them until none is left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.advance_task import EAGER_BATCH
from aggregator_service.app.check_in import Assigned
from aggregator_service.app.fold_updates import LEASE
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.domain.assignments import AssignmentState, Evaluation
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.memory import MemoryBlobs, MemoryStore
from aggregator_service.store.open import open_store
from flasc_core.errors import Reason, Refusal
from tests.support.faults import Moment, Trap
from tests.support.one_hot import eager_policy, one_hot, one_hot_config
from tests.support.one_task import OneTask, Process, update_header

Worlds = Callable[[Iterable[Trap]], OneTask]
# Of these one hands in a blob, one gives up, and the others keep their payload in the row.
DEVICES = 4
# So that updates are folded while their round still collects.
CROWD = EAGER_BATCH + 2
SHARDS = 2


def in_memory(traps: Iterable[Trap] = ()) -> OneTask:
    store = MemoryStore()
    return OneTask(reopen=lambda: store, blobs=MemoryBlobs(), traps=iter(traps))


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a folder: no machine stops here, only processes."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def worlds(request: pytest.FixtureRequest, memory_folder: Path) -> Worlds:
    """Makes an empty world, a new one at every call."""
    if request.param == "memory":
        return in_memory
    template: Path = request.getfixturevalue("sqlite_template")
    numbers = count()

    def on_disk(traps: Iterable[Trap]) -> OneTask:
        path = memory_folder / f"{next(numbers)}.db"
        shutil.copyfile(template, path)
        return OneTask(
            reopen=lambda: open_store(f"sqlite:///{path}", pool_size=1),
            blobs=MemoryBlobs(),
            traps=iter(traps),
        )

    return on_disk


@contextmanager
def told_where(trap: Trap) -> Iterator[None]:
    """Says of a failure which step it followed from."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{trap.moment.value} call {trap.at} of {trap.calls}")
        raise


def every_trap(make: Callable[[int], Trap], play: Callable[[Trap], None]) -> int:
    """Plays with a trap at the first call, at the second, until one is never reached."""
    for at in count(1):
        trap = make(at)
        with told_where(trap):
            play(trap)
        if not trap.has_sprung:
            return at - 1
    raise AssertionError


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
@settings(max_examples=60, deadline=None)
def test_a_task_completes_alike_though_its_successors_die_too(
    undisturbed: list[bytes], deaths: list[Trap]
) -> None:
    world = in_memory(deaths)
    live(world)
    check_life(world, undisturbed)


# -- a round that several drivers fold


def crowded(world: OneTask) -> None:
    """A round whose updates are waiting, all but the last of them, for the first driver."""
    world.enroll(CROWD)
    policy = eager_policy(goal=CROWD)
    config = one_hot_config(policy, rounds=1, fold_shards=SHARDS)
    world.untrapped.create_task(config)
    world.untrapped.settle()
    for number in range(CROWD - 1):
        world.take_part(number, as_blob=number == 0)


def fold_and_publish(world: OneTask) -> None:
    with world.trapped():
        world.settle()
        world.take_part(CROWD - 1)
        world.settle()


@pytest.fixture(scope="module")
def undisturbed_crowd() -> list[bytes]:
    world = in_memory()
    crowded(world)
    fold_and_publish(world)
    return world.published


def check_crowd(world: OneTask, published: list[bytes]) -> None:
    assert world.task.state is TaskState.COMPLETED
    assert world.published == published
    assert len(world.receipts[world.rounds[0].id]) == CROWD
    world.check_conservation()
    world.check_transitions()
    world.check_swept()


@pytest.mark.parametrize("moment", Moment)
def test_a_round_is_published_alike_whichever_step_its_driver_dies_in(
    undisturbed_crowd: list[bytes], moment: Moment
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        crowded(world)
        fold_and_publish(world)
        check_crowd(world, undisturbed_crowd)

    deaths = every_trap(lambda at: Trap(at=at, moment=moment, effects_only=True), play)
    assert deaths > 15


@pytest.mark.parametrize("pause", [LEASE / 2, LEASE], ids=["lease held", "lease lost"])
def test_a_driver_may_do_everything_between_any_two_calls_of_another(
    undisturbed_crowd: list[bytes], pause: timedelta
) -> None:
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
        check_crowd(world, undisturbed_crowd)

    assert every_trap(lambda at: Trap(at=at), play) > 30


# -- rivals of a driver, and of a device that hands in


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
    "interfere",
    [
        hand_in_again,
        hand_in_another,
        give_up_meanwhile,
        reach_the_goal,
        abort_meanwhile,
        let_time_run_out,
    ],
)
def test_what_is_acknowledged_counts_whoever_comes_between_the_steps_of_an_upload(
    interfere: Callable[[OneTask, Assigned], None],
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        world.enroll(2)
        config = one_hot_config(eager_policy(goal=1, over_selection=2.0), rounds=1)
        world.untrapped.create_task(config)
        world.untrapped.settle()
        work = world.untrapped.check_in(world.devices[0])
        trap.action = lambda: interfere(world, work)
        with (
            world.trapped(),
            refused(Reason.UPDATE_CONFLICT, Reason.ASSIGNMENT_EXPIRED, Reason.ROUND_CLOSED),
        ):
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
