"""What every store keeps of assignments and the bytes they cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from aggregator_service.domain.assignments import Assignment, AssignmentState, Evaluation
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import LostRace, Store, Transaction
from flasc_core.layout import Role
from tests.builders import (
    NOW,
    SECOND,
    a_device,
    a_download,
    a_round,
    a_task,
    an_assignment,
    an_update,
    some_counts,
    some_training,
    stored,
)
from tests.support.seen import figures_of

TRAINING, ACCEPTED = AssignmentState.TRAINING, AssignmentState.ACCEPTED
EXPIRED = AssignmentState.EXPIRED


def a_stored_round(store: Store, task: Task | None = None, **changes: Any) -> Round:
    if task is None:
        task = a_task()
        stored(store, task)
    current = a_round(task, state=RoundState.COLLECTING, **changes)
    stored(store, current)
    return current


def a_stored_assignment(store: Store, current: Round, **changes: Any) -> Assignment:
    device = a_device()
    assignment = an_assignment(current, device, **changes)
    stored(store, device, assignment)
    return assignment


def moved(store: Store, assignment: Assignment, *, down: int, up: int) -> None:
    store.run("move", lambda tx: tx.assignments.add_bytes(assignment.id, down=down, up=up))


def read_again(store: Store, assignment: Assignment) -> Assignment | None:
    return store.read("get", lambda tx: tx.assignments.get(assignment.id))


@pytest.mark.parametrize("state", AssignmentState)
def test_a_stored_assignment_is_read_back_as_it_was(store: Store, state: AssignmentState) -> None:
    assignment = a_stored_assignment(
        store,
        a_stored_round(store),
        state=state,
        detail="the battery ran low",
        training_metrics=some_training(),
        evaluation=some_counts(),
        values_by_role={Role.LORA_B: 2**40, Role.HEAD: 5},
        # The highest seed there is.
        training_seed=2**64 - 1,
    )

    get = store.read("get", lambda tx: tx.assignments.get(assignment.id))
    of_device = store.read(
        "get", lambda tx: tx.assignments.of_device(assignment.round_id, assignment.device_id)
    )

    assert get == assignment
    assert of_device == assignment


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**63])
def test_a_seed_keeps_all_its_bits(store: Store, seed: int) -> None:
    assignment = a_stored_assignment(store, a_stored_round(store), training_seed=seed)

    read = store.read("get", lambda tx: tx.assignments.get(assignment.id))

    assert read is not None
    assert read.training_seed == seed


def test_an_unknown_assignment_is_none(store: Store) -> None:
    assert store.read("get", lambda tx: tx.assignments.get(uuid4())) is None
    assert store.read("get", lambda tx: tx.assignments.of_device(uuid4(), uuid4())) is None


def test_a_device_takes_part_in_a_round_once(store: Store) -> None:
    current, device = a_stored_round(store), a_device()
    first = an_assignment(current, device)
    stored(store, device, first)

    second = an_assignment(current, device)
    added = store.run("add", lambda tx: tx.assignments.add_if_absent(second))

    assert not added
    kept = store.read("get", lambda tx: tx.assignments.of_device(current.id, device.id))
    assert kept == first
    assert store.read("get", lambda tx: tx.assignments.get(second.id)) is None


def test_a_device_takes_part_in_every_round(store: Store) -> None:
    task, device = a_task(), a_device()
    stored(store, task, device)
    first, second = (a_stored_round(store, task, number=number) for number in (1, 2))

    stored(store, an_assignment(first, device), an_assignment(second, device))

    assert store.read("count", lambda tx: tx.assignments.count(first.id, TRAINING)) == 1
    assert store.read("count", lambda tx: tx.assignments.count(second.id, TRAINING)) == 1


def test_saving_keeps_what_the_device_reported(store: Store) -> None:
    assignment = a_stored_assignment(store, a_stored_round(store))
    ended = assignment.end(
        ACCEPTED, NOW + SECOND, training_metrics=some_training(), evaluation=some_counts()
    )

    store.run("save", lambda tx: tx.assignments.save(ended))

    read = store.read("get", lambda tx: tx.assignments.get(assignment.id))
    assert read == replace(ended, revision=1)


def test_saving_an_old_revision_of_an_assignment_loses_the_race(store: Store) -> None:
    assignment = a_stored_assignment(store, a_stored_round(store))
    accepted = assignment.end(ACCEPTED, NOW)
    store.run("save", lambda tx: tx.assignments.save(accepted))

    with pytest.raises(LostRace):
        store.run("save", lambda tx: tx.assignments.save(assignment.end(EXPIRED, NOW)))

    read = store.read("get", lambda tx: tx.assignments.get(assignment.id))
    assert read is not None
    assert read.state is ACCEPTED


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_before_they_are_lost(
    store: Store, number: float
) -> None:
    assignment = a_stored_assignment(store, a_stored_round(store))
    ended = assignment.end(ACCEPTED, NOW, training_metrics=some_training(loss_mean=number))

    with pytest.raises(ValueError, match="can not be stored"):
        store.run("save", lambda tx: tx.assignments.save(ended))

    assert store.read("get", lambda tx: tx.assignments.get(assignment.id)) == assignment


def test_only_what_is_past_its_time_expires(store: Store) -> None:
    current = a_stored_round(store)
    due = a_stored_assignment(store, current, expires_at=NOW + SECOND)
    open_still = a_stored_assignment(store, current, expires_at=NOW + 2 * SECOND)
    accepted = a_stored_assignment(store, current, state=ACCEPTED, expires_at=NOW)
    other_round = a_stored_assignment(store, a_stored_round(store), expires_at=NOW)

    expired = store.run("expire", lambda tx: tx.assignments.expire(current.id, NOW + SECOND))

    assert expired == 1
    assert read_again(store, due) == replace(due, state=EXPIRED, ended_at=NOW + SECOND, revision=1)
    for untouched in (open_still, accepted, other_round):
        assert read_again(store, untouched) == untouched


def test_every_open_assignment_expires_when_its_round_is_over(store: Store) -> None:
    current = a_stored_round(store)
    for _ in range(2):
        a_stored_assignment(store, current)
    accepted = a_stored_assignment(store, current, state=ACCEPTED)

    expired = store.run("expire", lambda tx: tx.assignments.expire(current.id, NOW, all_open=True))

    assert expired == 2
    assert store.read("get", lambda tx: tx.assignments.get(accepted.id)) == accepted


def test_assignments_are_counted_by_state(store: Store) -> None:
    current = a_stored_round(store)
    for state in (TRAINING, TRAINING, ACCEPTED):
        a_stored_assignment(store, current, state=state)
    a_stored_assignment(store, a_stored_round(store))

    def count(state: AssignmentState) -> int:
        return store.read("count", lambda tx: tx.assignments.count(current.id, state))

    assert (count(TRAINING), count(ACCEPTED), count(EXPIRED)) == (2, 1, 0)


def test_the_last_accepted_round_is_the_highest_of_the_device_in_the_task(store: Store) -> None:
    task, other, device = a_task(), a_task(), a_device()
    stored(store, task, other, device)
    for number, state in ((1, ACCEPTED), (2, ACCEPTED), (3, EXPIRED)):
        stored(
            store, an_assignment(a_stored_round(store, task, number=number), device, state=state)
        )
    stored(store, an_assignment(a_stored_round(store, other, number=9), device, state=ACCEPTED))
    # Nothing came of it: whoever was in it need not rest.
    aborted = a_round(task, state=RoundState.ABORTED, number=4)
    stored(store, aborted, an_assignment(aborted, device, state=ACCEPTED))

    def last(device_id: UUID) -> int | None:
        return store.read("last", lambda tx: tx.assignments.last_accepted_round(task.id, device_id))

    assert last(device.id) == 2
    assert last(uuid4()) is None


def test_bytes_add_up_without_raising_the_revision(store: Store) -> None:
    current = a_stored_round(store)
    assignment = a_stored_assignment(store, current)

    def body(tx: Transaction) -> None:
        tx.assignments.add_bytes(assignment.id, down=2**40)
        tx.assignments.add_bytes(assignment.id, down=1, up=3)

    store.run("add", body)

    (record,) = store.read("page", lambda tx: tx.assignments.page(current.id, limit=9, after=None))
    assert record.assignment == assignment
    assert (record.payload_bytes_down, record.payload_bytes_up) == (2**40 + 1, 3)


def test_assignments_are_paged_in_order_of_identifier(store: Store) -> None:
    current = a_stored_round(store)
    ids = sorted(a_stored_assignment(store, current).id for _ in range(5))
    a_stored_assignment(store, a_stored_round(store))

    def page(after: UUID | None) -> list[UUID]:
        records = store.read(
            "page", lambda tx: tx.assignments.page(current.id, limit=3, after=after)
        )
        return [record.assignment.id for record in records]

    assert page(None) == ids[:3]
    assert page(ids[2]) == ids[3:]
    assert page(ids[4]) == []


def test_figures_of_a_round_that_nobody_joined_are_zero(store: Store) -> None:
    current = a_stored_round(store)

    figures = figures_of(store, current)

    assert dict(figures.assignments) == dict.fromkeys(AssignmentState, 0)
    assert not figures.tiers
    assert (figures.examples, figures.steps) == (0, 0)
    assert figures.loss_mean is None
    assert figures.evaluation is None


def test_figures_weigh_losses_by_examples_and_count_accepted_updates_only(store: Store) -> None:
    current = a_stored_round(store)
    accepted = [
        some_training(examples=30, steps=3, loss_mean=1.0),
        some_training(examples=10, steps=1, loss_mean=3.0),
    ]
    for metrics in accepted:
        assignment = a_stored_assignment(
            store,
            current,
            state=ACCEPTED,
            training_metrics=metrics,
            evaluation=some_counts(correct=1, total=2, loss_sum=0.5),
        )
        moved(store, assignment, down=7, up=2)
    # An assignment that failed has metrics that count for nothing, and an evaluation that counts.
    a_stored_assignment(
        store,
        current,
        state=AssignmentState.FAILED,
        training_metrics=some_training(examples=1000),
        evaluation=some_counts(correct=0, total=4, loss_sum=8.0),
    )
    a_stored_assignment(store, current)

    figures = figures_of(store, current)

    counted = {state: number for state, number in figures.assignments.items() if number}
    assert counted == {ACCEPTED: 2, AssignmentState.FAILED: 1, TRAINING: 1}
    assert (figures.tiers[""].bytes.down, figures.tiers[""].bytes.up) == (14, 4)
    assert (figures.examples, figures.steps) == (40, 4)
    assert figures.loss_mean == pytest.approx((30 * 1.0 + 10 * 3.0) / 40)
    assert figures.evaluation == Evaluation(correct=2, total=8, loss_sum=9.0)


def test_no_examples_have_no_mean_loss(store: Store) -> None:
    current = a_stored_round(store)
    a_stored_assignment(store, current, state=ACCEPTED, training_metrics=some_training(examples=0))

    figures = figures_of(store, current)

    assert figures.loss_mean is None


def wasted(store: Store, current: Round) -> dict[UUID, tuple[int, int]]:
    records = store.read("page", lambda tx: tx.assignments.page(current.id, limit=99, after=None))
    return {one.assignment.id: (one.wasted_bytes_down, one.wasted_bytes_up) for one in records}


def test_bytes_are_wasted_beyond_one_download_and_one_payload_of_what_came_of_them(
    store: Store,
) -> None:
    current = a_stored_round(store)
    size = a_download().size_bytes
    expected = {}
    for state in AssignmentState:
        for down in (0, size - 1, size, size + 1, 3 * size):
            assignment = a_stored_assignment(store, current, state=state)
            if state is ACCEPTED:
                stored(store, an_update(assignment, payload_bytes=7))
            moved(store, assignment, down=down, up=10)
            used = min(down, size) if state.uses_download else 0
            expected[assignment.id] = (down - used, 3 if state is ACCEPTED else 10)

    assert wasted(store, current) == expected
    figures = figures_of(store, current)
    total = figures.tiers[""].bytes
    assert (total.wasted_down, total.wasted_up) == (
        sum(down for down, _ in expected.values()),
        sum(up for _, up in expected.values()),
    )
    assert (total.download_size_bytes, total.updates_accepted) == (size, 5)


def test_what_a_retracted_update_cost_is_wasted(store: Store) -> None:
    current = a_stored_round(store)
    assignment = a_stored_assignment(store, current, state=ACCEPTED)
    update = an_update(assignment, payload_bytes=7)
    stored(store, update)
    moved(store, assignment, down=100, up=7)
    assert wasted(store, current) == {assignment.id: (0, 0)}

    def retract(tx: Transaction) -> None:
        tx.updates.retract(update)
        tx.assignments.save(assignment.retract(NOW, "a reason"))

    store.run("retract", retract)

    assert wasted(store, current) == {assignment.id: (100, 7)}


def test_figures_of_several_rounds_are_those_of_each(store: Store) -> None:
    task = a_task()
    stored(store, task)
    rounds = [a_stored_round(store, task, number=number) for number in (1, 2, 3)]
    for correct, current in enumerate(rounds[:2], start=1):
        counts = some_counts(correct=correct, total=10)
        a_stored_assignment(store, current, state=ACCEPTED, evaluation=counts)
        a_stored_assignment(store, current, tier="phone")

    together = store.read("figures", lambda tx: tx.assignments.figures([one.id for one in rounds]))

    assert together == {one.id: figures_of(store, one) for one in rounds}
    assert len(set(map(repr, together.values()))) == 3
    apart = store.read(
        "evaluations", lambda tx: {one.id: tx.assignments.evaluation(one.id) for one in rounds}
    )
    assert apart == {number: figures.evaluation for number, figures in together.items()}
