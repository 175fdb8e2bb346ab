"""What every store keeps of devices' tiers: steps down the list, weights and figures by tier."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from aggregator_service.domain.assignments import Assignment, AssignmentState
from aggregator_service.domain.credentials import Device
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Store
from aggregator_service.store.figures import TierRound
from flasc_core.layout import Role
from tests.builders import (
    NOW,
    a_device,
    a_round,
    a_task,
    an_assignment,
    an_update,
    some_counts,
    stored,
)
from tests.support.seen import figures_of

ACCEPTED = AssignmentState.ACCEPTED


def a_stored_round(store: Store, task: Task | None = None, **changes: Any) -> Round:
    if task is None:
        task = a_task()
        stored(store, task)
    current = a_round(task, state=RoundState.COLLECTING, **changes)
    stored(store, current)
    return current


def an_accepted_part(
    store: Store, current: Round, device: Device | None = None, **changes: Any
) -> Assignment:
    if device is None:
        device = a_device()
        stored(store, device)
    part = an_assignment(current, device, state=ACCEPTED, **changes)
    stored(store, part)
    return part


def steps_of(store: Store, task_id: UUID, device: Device) -> int:
    return store.read("steps", lambda tx: tx.assignments.tier_steps(task_id, device.id))


def test_steps_down_are_those_of_a_device_s_accepted_updates_in_the_task(store: Store) -> None:
    current, elsewhere = a_stored_round(store), a_stored_round(store)
    device = a_device()
    stored(store, device)
    an_accepted_part(store, current, tier_steps=5)
    an_accepted_part(store, elsewhere, device, tier_steps=3)
    assert steps_of(store, current.task_id, device) == 0

    part = an_accepted_part(store, current, device, tier_steps=1)
    assert steps_of(store, current.task_id, device) == 1

    store.run("retract", lambda tx: tx.assignments.save(part.retract(NOW, "a reason")))
    assert steps_of(store, current.task_id, device) == 0


def test_weights_are_summed_by_tier_over_the_accepted_set(store: Store) -> None:
    current = a_stored_round(store)
    for tier, weight in (("", 2), ("phone", 3), ("phone", 4)):
        stored(store, an_update(an_accepted_part(store, current, tier=tier), weight=weight))
    retracted = an_update(an_accepted_part(store, current, tier="phone"), weight=9)
    stored(store, retracted)
    store.run("retract", lambda tx: tx.updates.retract(retracted))

    found = store.read("weights", lambda tx: tx.updates.weights_by_tier(current.id))

    assert dict(found) == {"": 2, "phone": 7}


def test_values_are_summed_by_role_and_tier(store: Store) -> None:
    current = a_stored_round(store)
    for tier, values in (
        ("", {Role.LORA_A: 2**40}),
        ("phone", {Role.LORA_B: 3, Role.HEAD: 1}),
        ("phone", {Role.LORA_B: 4}),
    ):
        an_accepted_part(store, current, tier=tier, values_by_role=values)

    tiers = figures_of(store, current).tiers

    assert tiers[""].values_by_role == {Role.LORA_A: 2**40, Role.LORA_B: 0, Role.HEAD: 0}
    assert tiers["phone"].values_by_role == {Role.LORA_A: 0, Role.LORA_B: 7, Role.HEAD: 1}


def test_a_task_s_rounds_are_told_by_tier_with_the_figures_of_each(store: Store) -> None:
    task = a_task()
    stored(store, task)
    second = a_stored_round(store, task, number=2, base_version=1)
    first = a_stored_round(store, task, number=1)
    a_stored_round(store, task, number=3, base_version=2)
    # Named so that many databases' collations would sort them otherwise.
    for correct, (current, tier) in enumerate(
        [(second, "aa"), (first, "aa"), (first, "a-z"), (first, "")]
    ):
        an_accepted_part(store, current, tier=tier, evaluation=some_counts(correct=correct))
    an_accepted_part(store, a_stored_round(store), tier="aa")

    found = store.read("tiers", lambda tx: tx.assignments.rounds_by_tier(task.id))

    of_first, of_second = figures_of(store, first).tiers, figures_of(store, second).tiers
    assert list(found) == ["", "a-z", "aa"]
    assert list(found[""]) == [TierRound(number=1, base_version=0, figures=of_first[""])]
    assert list(found["a-z"]) == [TierRound(number=1, base_version=0, figures=of_first["a-z"])]
    assert list(found["aa"]) == [
        TierRound(number=1, base_version=0, figures=of_first["aa"]),
        TierRound(number=2, base_version=1, figures=of_second["aa"]),
    ]


def test_a_task_without_assignments_has_no_tiers(store: Store) -> None:
    empty, current = a_stored_round(store), a_stored_round(store)
    an_accepted_part(store, current, tier="phone")

    found = store.read("tiers", lambda tx: tx.assignments.rounds_by_tier(empty.task_id))

    assert found == {}
