"""What every store keeps of budgets: one reservation a round, secrets that go, sums that add up."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.privacy import Budget, Reservation
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import LostRace, Store
from tests.builders import (
    NOW,
    SECOND,
    a_device,
    a_draw,
    a_reservation,
    a_round,
    a_task,
    an_assignment,
    digest,
    stored,
)


def a_reserved_round(
    store: Store, task: Task, number: int, state: RoundState, **changes: Any
) -> Round:
    current = a_round(task, state=state, number=number)
    stored(store, current, a_reservation(current, rounds=number, **changes))
    return current


def reservation_of(store: Store, current: Round) -> Reservation | None:
    return store.read("get", lambda tx: tx.reservations.get(current.id))


@pytest.mark.parametrize("draw", [None, a_draw(), a_draw(threshold=1 << 62, devices=0)])
def test_a_reservation_is_read_back_as_it_was(store: Store, draw: Any) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    reserved = a_reservation(current, draw=draw, epsilon=1 / 3, is_last=True, rounds=7)
    stored(store, task, current, reserved)

    assert reservation_of(store, current) == reserved
    assert reservation_of(store, a_round(task, state=RoundState.PENDING)) is None


def test_the_reservations_of_several_rounds_come_together(store: Store) -> None:
    task = a_task()
    stored(store, task)
    first, second, _ = (
        a_reserved_round(store, task, n, RoundState.COLLECTING) for n in range(1, 4)
    )
    without = a_round(task, state=RoundState.PENDING, number=4)
    stored(store, without)

    asked = [first.id, second.id, without.id]
    found = store.read("get", lambda tx: tx.reservations.of_rounds(asked))

    assert found == {one.id: reservation_of(store, one) for one in (first, second)}


def test_a_round_reserves_once(store: Store) -> None:
    task = a_task()
    stored(store, task)
    current = a_reserved_round(store, task, 1, RoundState.COLLECTING)

    with pytest.raises(LostRace):
        stored(store, a_reservation(current, rounds=2))

    assert reservation_of(store, current) == a_reservation(current)


def test_noise_is_fixed_once(store: Store) -> None:
    task = a_task()
    stored(store, task)
    current = a_reserved_round(store, task, 1, RoundState.COLLECTING, draw=a_draw())
    free = a_round(task, state=RoundState.COLLECTING, number=2)
    stored(store, free)

    store.run("fix", lambda tx: tx.reservations.fix_noise(current.id, digest("first")))
    with pytest.raises(LostRace):
        store.run("fix", lambda tx: tx.reservations.fix_noise(current.id, digest("second")))
    with pytest.raises(LostRace):
        store.run("fix", lambda tx: tx.reservations.fix_noise(free.id, digest("second")))

    fixed = a_reservation(current, draw=a_draw(), noise_seed=digest("first"))
    assert reservation_of(store, current) == fixed


def test_what_is_scrubbed_leaves_the_cost_alone(store: Store) -> None:
    task = a_task()
    stored(store, task)
    secret = {"draw": a_draw(), "noise_seed": digest("noise")}
    current, other = (
        a_reserved_round(store, task, number, RoundState.FOLDING, **secret) for number in (1, 2)
    )

    for _ in range(2):
        store.run("scrub", lambda tx: tx.reservations.scrub(current.id))
    store.run("scrub", lambda tx: tx.reservations.scrub(task.id))

    assert reservation_of(store, current) == a_reservation(current)
    assert reservation_of(store, other) == a_reservation(other, rounds=2, **secret)


def test_a_budget_counts_all_rounds_but_aborted_ones(store: Store) -> None:
    task, other = a_task(), a_task()
    stored(store, task, other)
    nothing = Budget(
        rounds_reserved=0,
        epsilon_reserved=0,
        rounds_published=0,
        epsilon_spent=0,
        is_exhausted=False,
    )
    assert store.read("budget", lambda tx: tx.reservations.budget(task.id)) == nothing

    states = [
        RoundState.PUBLISHED,
        RoundState.PUBLISHED,
        RoundState.ABORTED,
        RoundState.FOLDING,
        RoundState.CLOSING,
        RoundState.COLLECTING,
    ]
    for number, state in enumerate(states, start=1):
        is_last = state is RoundState.ABORTED
        a_reserved_round(store, task, number, state, epsilon=float(number), is_last=is_last)
    a_reserved_round(store, other, 1, RoundState.PUBLISHED, epsilon=99.0)

    held = Budget(
        rounds_reserved=5,
        epsilon_reserved=6.0,
        rounds_published=2,
        epsilon_spent=2.0,
        is_exhausted=False,
    )
    assert store.read("budget", lambda tx: tx.reservations.budget(task.id)) == held


def test_a_budget_is_exhausted_by_a_last_round_that_was_not_aborted(store: Store) -> None:
    task = a_task()
    stored(store, task)
    a_reserved_round(store, task, 1, RoundState.COLLECTING, is_last=True)
    assert store.read("budget", lambda tx: tx.reservations.budget(task.id)).is_exhausted


def test_participations_are_accepted_updates_of_rounds_that_were_not_aborted(store: Store) -> None:
    task, other, device, stranger = a_task(), a_task(), a_device(), a_device()
    stored(store, task, other, device, stranger)
    rounds = [
        a_round(task, state=RoundState.PUBLISHED, number=1),
        a_round(task, state=RoundState.ABORTED, number=2),
        a_round(task, state=RoundState.FOLDING, number=3),
        a_round(task, state=RoundState.PUBLISHED, number=4),
        a_round(task, state=RoundState.COLLECTING, number=5),
        a_round(other, state=RoundState.COLLECTING, number=1),
    ]
    states = [AssignmentState.ACCEPTED] * 6
    states[3:5] = [AssignmentState.RETRACTED, AssignmentState.TRAINING]
    for current, state in zip(rounds, states, strict=True):
        stored(store, current, an_assignment(current, device, state=state))
    stored(store, an_assignment(rounds[0], stranger, state=AssignmentState.ACCEPTED))

    taken = store.read("taken", lambda tx: tx.assignments.participations(task.id, device.id))
    assert taken == 2
    assert store.read("none", lambda tx: tx.assignments.participations(other.id, stranger.id)) == 0


def test_devices_are_enrolled_before_a_time_unless_revoked(store: Store) -> None:
    early, late, revoked = a_device(enrolled_at=NOW - SECOND), a_device(), a_device()
    stored(store, early, late, revoked)
    store.run("revoke", lambda tx: tx.devices.revoke(revoked.id, NOW))

    def enrolled(when: Any) -> set[Any]:
        return set(store.read("enrolled", lambda tx: tx.devices.enrolled_before(when)))

    assert enrolled(NOW) == {early.id}
    assert enrolled(NOW + SECOND) == {early.id, late.id}
