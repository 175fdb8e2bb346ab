"""What every store keeps of devices' tiers: steps down the list, and weights by tier."""

from __future__ import annotations

from uuid import UUID

from aggregator_service.domain.assignments import Assignment, AssignmentState
from aggregator_service.domain.credentials import Device
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.store.base import Store
from flasc_core.layout import Role
from tests.builders import NOW, a_device, a_round, a_task, an_assignment, an_update, stored
from tests.support.seen import figures_of

ACCEPTED = AssignmentState.ACCEPTED


def a_stored_round(store: Store) -> Round:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task)
    stored(store, current)
    return current


def an_accepted_part(
    store: Store, current: Round, device: Device | None = None, *, tier: str = "", steps: int = 0
) -> Assignment:
    if device is None:
        device = a_device()
        stored(store, device)
    part = an_assignment(current, device, state=ACCEPTED, tier=tier, tier_steps=steps)
    stored(store, part)
    return part


def steps_of(store: Store, task_id: UUID, device: Device) -> int:
    return store.read("steps", lambda tx: tx.assignments.tier_steps(task_id, device.id))


def test_steps_down_are_those_of_a_device_s_accepted_updates_in_the_task(store: Store) -> None:
    current, elsewhere = a_stored_round(store), a_stored_round(store)
    device = a_device()
    stored(store, device)
    an_accepted_part(store, current, steps=5)
    an_accepted_part(store, elsewhere, device, steps=3)
    assert steps_of(store, current.task_id, device) == 0

    part = an_accepted_part(store, current, device, steps=1)
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
        device = a_device()
        stored(store, device)
        part = an_assignment(current, device, state=ACCEPTED, tier=tier, values_by_role=values)
        stored(store, part)

    tiers = figures_of(store, current).tiers

    assert tiers[""].values_by_role == {Role.LORA_A: 2**40, Role.LORA_B: 0, Role.HEAD: 0}
    assert tiers["phone"].values_by_role == {Role.LORA_A: 0, Role.LORA_B: 7, Role.HEAD: 1}
