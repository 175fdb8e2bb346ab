"""What every store keeps of devices, API keys, refusals and events."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.domain.rounds import RoundState
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal
from tests.builders import (
    NOW,
    SECOND,
    a_device,
    a_round,
    a_task,
    an_api_key,
    an_event,
    stored,
)


def test_a_stored_device_is_read_back_as_it_was(store: Store) -> None:
    device = a_device(last_seen_at=NOW, revoked_at=NOW + SECOND)
    stored(store, device)

    assert store.read("get", lambda tx: tx.devices.get(device.id)) == device
    assert store.read("get", lambda tx: tx.devices.get(uuid4())) is None


def test_a_device_name_is_taken_once(store: Store) -> None:
    device = a_device(name="once")
    stored(store, device)

    with pytest.raises(Refusal) as refused:
        stored(store, a_device(name="once"))

    assert refused.value.reason is Reason.NAME_TAKEN
    assert store.read("page", lambda tx: tx.devices.page(limit=9, after=None)) == [device]


def test_devices_are_paged_in_order_of_identifier(store: Store) -> None:
    devices = sorted((a_device() for _ in range(5)), key=lambda one: one.id)
    stored(store, *reversed(devices))

    def page(after: UUID | None) -> list[Device]:
        return list(store.read("page", lambda tx: tx.devices.page(limit=3, after=after)))

    assert page(None) == devices[:3]
    assert page(devices[2].id) == devices[3:]


def test_revoking_again_keeps_the_first_time(store: Store) -> None:
    device, other = a_device(), a_device()
    stored(store, device, other)

    store.run("revoke", lambda tx: tx.devices.revoke(device.id, NOW + SECOND))
    store.run("revoke", lambda tx: tx.devices.revoke(device.id, NOW + 2 * SECOND))

    read = store.read("get", lambda tx: tx.devices.get(device.id))
    assert read is not None
    assert read.revoked_at == NOW + SECOND
    assert store.read("get", lambda tx: tx.devices.get(other.id)) == other


def test_touching_a_device_moves_when_it_was_last_seen(store: Store) -> None:
    device = a_device()
    stored(store, device)

    store.run("touch", lambda tx: tx.devices.touch(device.id, NOW + SECOND))
    store.run("touch", lambda tx: tx.devices.touch(device.id, NOW + 2 * SECOND))

    read = store.read("get", lambda tx: tx.devices.get(device.id))
    assert read is not None
    assert read.last_seen_at == NOW + 2 * SECOND
    assert read.revoked_at is None


def test_a_device_moves_to_another_tier_and_nobody_else_does(store: Store) -> None:
    device, other = a_device(tier="phone"), a_device(tier="phone")
    stored(store, device)
    stored(store, other)

    store.run("tier", lambda tx: tx.devices.set_tier(device.id, "laptop"))

    read = store.read("get", lambda tx: (tx.devices.get(device.id), tx.devices.get(other.id)))
    assert read == (replace(device, tier="laptop"), other)


def test_a_stored_api_key_is_read_back_as_it_was(store: Store) -> None:
    key = an_api_key(revoked_at=NOW, made_by=uuid4())
    stored(store, key)

    assert store.read("get", lambda tx: tx.api_keys.get(key.id)) == key
    assert store.read("get", lambda tx: tx.api_keys.get(uuid4())) is None


def test_api_keys_may_share_a_name_and_are_paged_in_order(store: Store) -> None:
    keys = sorted((an_api_key(name="same") for _ in range(4)), key=lambda one: one.id)
    stored(store, *keys)

    def page(after: UUID | None) -> list[ApiKey]:
        return list(store.read("page", lambda tx: tx.api_keys.page(limit=3, after=after)))

    assert page(None) == keys[:3]
    assert page(keys[2].id) == keys[3:]


def test_revoking_an_api_key_again_keeps_the_first_time(store: Store) -> None:
    key = an_api_key()
    stored(store, key)

    store.run("revoke", lambda tx: tx.api_keys.revoke(key.id, NOW + SECOND))
    store.run("revoke", lambda tx: tx.api_keys.revoke(key.id, NOW + 2 * SECOND))

    read = store.read("get", lambda tx: tx.api_keys.get(key.id))
    assert read is not None
    assert read.revoked_at == NOW + SECOND


def test_an_api_key_ends_with_the_one_that_it_was_made_with_and_no_other_does(
    store: Store,
) -> None:
    maker, other = an_api_key(), an_api_key()
    key = an_api_key(made_by=maker.id)
    made = an_api_key(made_by=key.id)
    made_of_made = an_api_key(made_by=made.id)
    ended = an_api_key(made_by=key.id, revoked_at=NOW)
    stored(store, maker, other, key, made, made_of_made, ended)

    store.run("revoke", lambda tx: tx.api_keys.revoke(key.id, NOW + SECOND))

    found = store.read("page", lambda tx: tx.api_keys.page(limit=9, after=None))
    assert {one.id: one.revoked_at for one in found} == {
        **dict.fromkeys((maker.id, other.id), None),
        **dict.fromkeys((key.id, made.id, made_of_made.id), NOW + SECOND),
        ended.id: NOW,
    }


def test_refusals_are_counted_by_reason_and_round(store: Store) -> None:
    first, second, task = uuid4(), uuid4(), uuid4()
    counted: list[tuple[Reason, UUID | None, UUID | None]] = [
        (Reason.NON_FINITE, task, first),
        (Reason.NON_FINITE, task, first),
        (Reason.K_BUDGET, task, first),
        (Reason.NON_FINITE, task, second),
        (Reason.CREDENTIAL_INVALID, None, None),
        (Reason.TASK_STATE, task, None),
    ]

    def body(tx: Transaction) -> None:
        for reason, task_id, round_id in counted:
            tx.rejections.count(reason, task_id=task_id, round_id=round_id)

    store.run("count", body)

    nowhere = uuid4()
    by_round = store.read("count", lambda tx: tx.rejections.by_round([first, second, nowhere]))
    totals = store.read("count", lambda tx: dict(tx.rejections.totals()))

    assert by_round == {
        first: {Reason.NON_FINITE: 2, Reason.K_BUDGET: 1},
        second: {Reason.NON_FINITE: 1},
        nowhere: {},
    }
    assert totals == {
        Reason.NON_FINITE: 3,
        Reason.K_BUDGET: 1,
        Reason.CREDENTIAL_INVALID: 1,
        Reason.TASK_STATE: 1,
    }


def test_a_task_s_refusals_are_those_of_its_rounds(store: Store) -> None:
    task, other = a_task(), a_task()
    rounds = [a_round(task, state=RoundState.COLLECTING, number=number) for number in (1, 2)]
    stored(store, task, other, *rounds)

    def body(tx: Transaction) -> None:
        for current in rounds:
            tx.rejections.count(Reason.K_BUDGET, task_id=task.id, round_id=current.id)
        tx.rejections.count(Reason.NON_FINITE, task_id=task.id, round_id=uuid4())
        tx.rejections.count(Reason.TASK_STATE, task_id=None, round_id=None)

    store.run("count", body)

    assert store.read("sum", lambda tx: tx.rejections.of_task(task.id)) == {Reason.K_BUDGET: 2}
    assert store.read("sum", lambda tx: tx.rejections.of_task(other.id)) == {}


def test_every_refusal_counts_however_the_counters_are_spread(store: Store) -> None:
    def body(tx: Transaction) -> None:
        for _ in range(100):
            tx.rejections.count(Reason.OVERLOADED, task_id=None, round_id=None)

    store.run("count", body)

    totals = store.read("count", lambda tx: dict(tx.rejections.totals()))
    assert totals == {Reason.OVERLOADED: 100}


def test_events_come_back_in_order_with_rising_numbers(store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    events = [
        an_event(task),
        an_event(task, round_id=current.id, state="COLLECTING", at=NOW + SECOND),
        an_event(task, round_id=current.id, state="CLOSING", at=NOW),
    ]
    stored(store, task, current, *events)

    read = store.read("after", lambda tx: tx.events.after(0, limit=9))

    assert [(one.round_id, one.state, one.at) for one in read] == [
        (one.round_id, one.state, one.at) for one in events
    ]
    sequences = [one.sequence for one in read]
    assert sequences == sorted(set(sequences))
    assert store.read("last", lambda tx: tx.events.last_sequence()) == sequences[-1]


def test_a_reader_goes_on_where_it_stopped(store: Store) -> None:
    task, other = a_task(), a_task()
    stored(store, task, other)
    stored(store, *(an_event(owner) for owner in (task, other, task, other)))

    first = store.read("after", lambda tx: tx.events.after(0, limit=3))
    rest = store.read("after", lambda tx: tx.events.after(first[-1].sequence, limit=3))
    of_task = store.read("after", lambda tx: tx.events.after(0, limit=9, task_id=task.id))

    assert [one.task_id for one in (*first, *rest)] == [task.id, other.id, task.id, other.id]
    assert [one.task_id for one in of_task] == [task.id, task.id]
    assert store.read("after", lambda tx: tx.events.after(rest[-1].sequence, limit=3)) == []


def test_a_stream_without_events_ends_at_zero(store: Store) -> None:
    assert store.read("last", lambda tx: tx.events.last_sequence()) == 0
    assert store.read("after", lambda tx: tx.events.after(0, limit=3)) == []
