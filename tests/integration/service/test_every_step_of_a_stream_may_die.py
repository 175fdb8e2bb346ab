"""A streamed upload ends in one counted update wherever the service dies, whoever goes first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aggregator_service.app.check_in import Assigned
from aggregator_service.app.receive_upload import ReceiveUpload
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.domain.rounds import RoundState
from flasc_core.errors import Reason, Refusal
from tests.support.faults import Moment, Trap, every_trap
from tests.support.one_hot import eager_policy, one_hot, one_hot_config
from tests.support.one_task import OneTask, Process, in_memory, update_header
from tests.support.seen import figures_of

PIECE = 20_000
PAYLOAD = one_hot(0, as_blob=True)
PIECES = -(-len(PAYLOAD) // PIECE)


def stream(process: Process, world: OneTask, work: Assigned, payload: bytes = PAYLOAD) -> int:
    """What a device does after any break: it asks, sends the rest, and hands in.

    Returns how many bytes it sent.
    """
    store, blobs, clock = process.store, process.blobs, process.clock
    submit = SubmitUpdate(store=store, blobs=blobs, now=clock)
    receive = ReceiveUpload(
        store=store, blobs=blobs, submit_update=submit, now=clock, piece_bytes=PIECE
    )
    device_id, header = world.devices[0], update_header(work, payload)
    start = receive.durable_bytes(device_id, work.assignment.id, header.payload_sha256)
    upload = receive.begin(device_id, header)
    assert upload.durable_bytes >= start
    for offset in range(start, len(payload), PIECE):
        piece = payload[offset : offset + PIECE]
        receive.keep(upload, offset, piece, len(piece))
    update_id = receive(device_id, upload).update.id
    assert world.receipts[work.round.id].setdefault(0, update_id) == update_id
    return len(payload) - start


def a_round(world: OneTask) -> Assigned:
    world.enroll(2)
    world.untrapped.create_task(one_hot_config(eager_policy(goal=1, over_selection=2.0), rounds=1))
    world.untrapped.settle()
    return world.untrapped.check_in(world.devices[0])


def pieces_of(world: OneTask) -> list[str]:
    return [key for key in world.blobs.keys("rounds/") if "/uploads/" in key]


@pytest.mark.parametrize("moment", Moment)
def test_a_stream_counts_once_and_goes_on_whichever_step_the_service_dies_in(
    moment: Moment,
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        work = a_round(world)
        with world.trapped():
            sent = world.do(lambda process: stream(process, world, work))
        assert sent == len(PAYLOAD) or trap.has_sprung
        assert len(world.receipts[work.round.id]) == 1
        world.untrapped.settle()
        assert [one.state for one in world.rounds] == [RoundState.PUBLISHED]
        world.check_conservation()
        world.check_swept()

    assert every_trap(lambda at: Trap(at=at, moment=moment, effects_only=True), play) > 2 * PIECES


def test_what_was_durable_before_a_death_is_not_sent_again() -> None:
    # Two pieces are charged and put, and it dies before it charges the third.
    world = in_memory([Trap(at=5, effects_only=True)])
    work = a_round(world)
    with world.trapped():
        assert world.do(lambda process: stream(process, world, work)) == len(PAYLOAD) - 2 * PIECE
    assert ledger(world, work) == len(PAYLOAD)


def ledger(world: OneTask, work: Assigned) -> int:
    figures = figures_of(world.untrapped.store, work.round)
    return figures.tiers[""].bytes.up


def the_same(world: OneTask, work: Assigned) -> None:
    stream(world.untrapped, world, work)


def the_same_and_settle(world: OneTask, work: Assigned) -> None:
    the_same(world, work)
    world.untrapped.settle()


def another(world: OneTask, work: Assigned) -> None:
    """A device that breaks the rules; whichever comes first counts."""
    try:
        stream(world.untrapped, world, work, one_hot(0))
    except Refusal as refusal:
        assert refusal.reason is Reason.UPDATE_CONFLICT  # noqa: PT017 - it may pass


@pytest.mark.parametrize("rival", [the_same, the_same_and_settle, another])
def test_another_stream_of_the_device_may_do_everything_between_any_two_steps(
    rival: Callable[[OneTask, Assigned], None],
) -> None:
    def play(trap: Trap) -> None:
        world = in_memory([trap])
        work = a_round(world)
        trap.action = lambda: rival(world, work)
        with world.trapped():
            try:
                world.do(lambda process: stream(process, world, work))
            except Refusal as refusal:
                assert rival is another
                assert refusal.reason is Reason.UPDATE_CONFLICT  # noqa: PT017 - it may pass
        assert pieces_of(world) == []
        world.untrapped.settle()
        assert [one.state for one in world.rounds] == [RoundState.PUBLISHED]
        assert len(world.receipts[work.round.id]) == 1
        world.check_conservation()
        world.check_transitions()
        world.check_swept()

    assert every_trap(lambda at: Trap(at=at), play) > 3 * PIECES
