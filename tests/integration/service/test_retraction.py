"""An update that was taken back leaves nothing behind, whatever happens on the way.

The published bytes are those of a run in which the device never took part.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import pytest

from aggregator_service.app.advance_task import AdvanceTask
from aggregator_service.app.check_in import Assigned, CheckIn, Query, RetryLater
from aggregator_service.app.close_round import CloseRound
from aggregator_service.app.fold_updates import LEASE, FoldUpdates
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.app.round_blobs import SweepBlobs
from aggregator_service.app.upload_pieces import UploadPieces
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.updates import FoldProgress, Update, UpdateState
from flasc_core.errors import Reason, Refusal
from tests.support.faults import Died, Moment, Trap, every_trap
from tests.support.one_hot import one_hot
from tests.support.one_task import NAME, OneTask, Process, in_memory
from tests.support.retraction import (
    FOLDED,
    GOAL,
    check_as_if_absent,
    collecting,
    finish,
    retract,
)
from tests.support.seen import figures_of

WHEN = pytest.mark.parametrize("folded", [False, True], ids=["waiting", "folded"])
WHERE = pytest.mark.parametrize("as_blob", [False, True], ids=["inline", "blob"])


def update_of(world: OneTask, number: int) -> Update:
    current = world.rounds[0]
    found = world.untrapped.store.read(
        "test", lambda tx: tx.updates.get(current.id, world.devices[number])
    )
    assert found is not None
    return found


def payload_blobs(world: OneTask) -> list[str]:
    return [key for key in world.blobs.keys("rounds/") if "/accumulators/" not in key]


def shards(world: OneTask) -> Sequence[FoldProgress]:
    current = world.rounds[0]
    return world.untrapped.store.read("test", lambda tx: tx.accumulators.all(current.id))


def advance(world: OneTask) -> None:
    """One step of a driver."""
    store, blobs = world.untrapped.store, world.blobs
    AdvanceTask(store=store, blobs=blobs, now=world.clock)(world.task.id)


@WHEN
@WHERE
def test_a_retracted_update_counts_nowhere_and_its_payload_is_gone_while_the_round_collects(
    folded: bool, as_blob: bool
) -> None:
    world = in_memory()
    collecting(world, as_blob=as_blob)
    if folded:
        world.settle()
        assert update_of(world, 0).state is UpdateState.FOLDED

    retract(world, 0)
    world.settle()

    assert world.rounds[0].state is RoundState.COLLECTING
    assert (update_of(world, 0).state, update_of(world, 0).payload) == (UpdateState.RETRACTED, None)
    assert payload_blobs(world) == []
    finish(world, absent=0)
    check_as_if_absent(world, 0)


@WHEN
def test_pieces_of_a_payload_that_was_streamed_go_with_it(folded: bool) -> None:
    """As when a process died between an update's acceptance and the dropping of its pieces."""
    world = in_memory()
    collecting(world)
    update = update_of(world, 0)
    pieces = UploadPieces(
        blobs=world.blobs, round_id=update.round_id, assignment_id=update.assignment_id
    )
    pieces.put(update.payload_sha256, update.payload_bytes, 0, one_hot(0))
    if folded:
        world.settle()

    retract(world, 0)
    world.settle()

    assert payload_blobs(world) == []


@WHEN
@WHERE
@pytest.mark.parametrize("moment", Moment)
def test_a_retraction_is_exact_whichever_step_the_operator_s_or_the_driver_s_process_dies_in(
    moment: Moment, folded: bool, as_blob: bool
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        collecting(world, as_blob=as_blob)
        if folded:
            world.untrapped.settle()
        with world.trapped():
            world.do(lambda process: retract(world, 0, process))
            world.settle()
            # A driver that was started again has swept before its first step.
            assert payload_blobs(world) == []
            finish(world, absent=0)
        check_as_if_absent(world, 0)

    deaths = every_trap(lambda at: Trap(at=at, moment=moment, effects_only=True), play)
    assert deaths > 10


@WHERE
@pytest.mark.parametrize("pause", [LEASE / 2, LEASE], ids=["lease held", "lease lost"])
def test_an_operator_may_retract_between_any_two_calls_of_a_driver(
    pause: timedelta, as_blob: bool
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])

        def rival() -> None:
            if world.rounds[0].state is RoundState.COLLECTING:
                retract(world, 0)
                world.clock.advance(pause)
                world.untrapped.settle()

        trap.action = rival
        collecting(world, as_blob=as_blob)
        with world.trapped():
            world.settle()
        world.clock.advance(LEASE)
        # For the case that nobody came between.
        retract(world, 0)
        world.untrapped.settle()
        finish(world, absent=0)
        check_as_if_absent(world, 0)

    assert every_trap(lambda at: Trap(at=at), play) > 10


def test_a_driver_that_lost_its_work_to_a_retraction_lets_the_next_one_begin_at_once() -> None:
    world = in_memory()
    collecting(world)

    def rival() -> None:
        # The first shard's driver is about to commit what it summed.
        for number in range(FOLDED):
            if update_of(world, number).shard == 0:
                retract(world, number)

    world.traps = iter([Trap(at="fold_batch", action=rival)])
    with world.trapped():
        world.settle()
    world.untrapped.settle()

    assert {shard.lease_token for shard in shards(world)} == {None}


def test_sums_that_come_back_are_not_those_that_a_slow_driver_is_about_to_delete() -> None:
    """It adds one, somebody takes it out again, and then it deletes the sums of before."""
    world = in_memory()
    collecting(world)
    task, current = world.task, world.rounds[0]

    def fold(process: Process) -> None:
        FoldUpdates(store=process.store, blobs=process.blobs, now=world.clock)(task, current)

    fold(world.untrapped)
    world.take_part(FOLDED)
    held = shards(world)[update_of(world, FOLDED).shard]

    def rival() -> None:
        retract(world, FOLDED)
        fold(world.untrapped)

    world.traps = iter([Trap(at=f"delete {held.key}", action=rival)])
    with world.trapped():
        world.do(fold)

    assert update_of(world, FOLDED).state is UpdateState.RETRACTED
    finish(world, absent=FOLDED)
    check_as_if_absent(world, FOLDED)


def test_retracting_again_changes_nothing() -> None:
    world = in_memory()
    collecting(world)
    retract(world, 0)
    before = world.untrapped.store.read("test", lambda tx: tx.events.last_sequence())

    retract(world, 0)
    world.settle()
    retract(world, 0)

    after = world.untrapped.store.read("test", lambda tx: tx.events.last_sequence())
    assert after == before
    finish(world, absent=0)
    retract(world, 0)
    check_as_if_absent(world, 0)


def test_the_place_is_free_and_the_device_gets_no_other_in_this_round() -> None:
    world = in_memory()
    collecting(world)
    # The last places are taken, by devices that do not answer.
    for number in range(FOLDED, GOAL):
        world.untrapped.check_in(world.devices[number])
    check_in = CheckIn(store=world.untrapped.store, now=world.clock)
    asked = Query(task_name=NAME)
    assert isinstance(check_in(world.devices[GOAL], asked), RetryLater)

    retract(world, 0)

    assert isinstance(check_in(world.devices[0], asked), RetryLater)
    assert world.untrapped.check_in(world.devices[GOAL]).round.number == 1


def test_a_goal_that_was_met_only_with_the_retracted_update_is_not_met() -> None:
    world = in_memory()
    collecting(world)
    for number in range(FOLDED, GOAL):
        world.take_part(number)
    retract(world, 0)
    current = world.rounds[0]

    assert not CloseRound(store=world.untrapped.store, now=world.clock)(current)

    figures = figures_of(world.untrapped.store, current)
    assert figures.assignments[AssignmentState.ACCEPTED] == GOAL - 1
    assert figures.assignments[AssignmentState.RETRACTED] == 1


@WHEN
@pytest.mark.parametrize("payload", [one_hot(0), one_hot(1)], ids=["same", "another"])
def test_a_device_that_hands_in_again_what_was_retracted_is_told_so(
    folded: bool, payload: bytes
) -> None:
    world = in_memory()
    collecting(world)
    given = world.untrapped.store.read(
        "test", lambda tx: tx.assignments.of_device(world.rounds[0].id, world.devices[0])
    )
    assert given is not None
    work = Assigned(task=world.task, round=world.rounds[0], assignment=given)
    if folded:
        world.settle()
    retract(world, 0)

    with pytest.raises(Refusal) as refused:
        world.untrapped.submit(world.devices[0], work, payload)

    assert refused.value.reason is Reason.UPDATE_RETRACTED
    assert update_of(world, 0).is_retracted


@pytest.mark.parametrize("state", [RoundState.CLOSING, RoundState.FOLDING, RoundState.PUBLISHED])
def test_after_the_close_nothing_is_retracted(state: RoundState) -> None:
    world = in_memory()
    collecting(world)
    for number in range(FOLDED, GOAL):
        world.take_part(number)
    while world.rounds[0].state is not state:
        advance(world)

    with pytest.raises(Refusal) as refused:
        retract(world, 0)

    assert refused.value.reason is Reason.ROUND_CLOSED
    assert ("abort the round" in refused.value.message) == (state is not RoundState.PUBLISHED)
    world.settle()
    world.check_conservation()


def test_what_does_not_exist_is_not_retracted() -> None:
    world = in_memory()
    collecting(world)
    use_case = RetractUpdate(store=world.untrapped.store, blobs=world.blobs, now=world.clock)
    current = world.rounds[0]
    for round_id, device_id, reason in (
        (uuid4(), world.devices[0], Reason.ROUND_UNKNOWN),
        (current.id, uuid4(), Reason.UPDATE_UNKNOWN),
        # Enrolled, without a part in this round.
        (current.id, world.devices[GOAL], Reason.UPDATE_UNKNOWN),
    ):
        with pytest.raises(Refusal) as refused:
            use_case(round_id, device_id, "a reason")
        assert refused.value.reason is reason


def test_an_aborted_round_destroys_what_was_still_to_be_taken_out() -> None:
    world = in_memory()
    collecting(world, as_blob=True)
    world.settle()
    retract(world, 0)
    assert update_of(world, 0).state is UpdateState.RETRACTING
    world.clock.advance(timedelta(days=2))
    for number in range(1, FOLDED):
        retract(world, number)

    # No update is left for a quorum.
    assert CloseRound(store=world.untrapped.store, now=world.clock)(world.rounds[0])

    assert world.rounds[0].state is RoundState.ABORTED
    assert {update_of(world, number).state for number in range(FOLDED)} == {UpdateState.RETRACTED}
    world.settle()
    world.check_swept()


def test_what_an_operator_s_process_left_as_it_died_is_swept_from_an_open_round() -> None:
    world = in_memory()
    collecting(world, as_blob=True)
    (key,) = payload_blobs(world)
    world.traps = iter([Trap(at=f"delete {key}")])
    with world.trapped(), pytest.raises(Died):
        retract(world, 0, world.process)
    assert payload_blobs(world) == [key]

    world.settle()

    assert payload_blobs(world) == []
    assert world.rounds[0].state is RoundState.COLLECTING


def test_a_sweep_spares_what_is_still_needed_in_an_open_round() -> None:
    world = in_memory()
    collecting(world, as_blob=True)
    world.settle()
    retract(world, 0)
    kept = set(world.blobs.keys("rounds/"))

    SweepBlobs(store=world.untrapped.store, blobs=world.blobs)()

    assert set(world.blobs.keys("rounds/")) == kept
