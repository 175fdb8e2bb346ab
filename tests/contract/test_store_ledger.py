"""What every store keeps of accepted updates, accumulators and adapters."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.updates import FoldProgress, Update, UpdateState
from aggregator_service.store.base import LedgerSummary, LostRace, Store
from flasc_core.fold import Accumulator
from flasc_core.sparse import SparseVector
from tests.builders import (
    NOW,
    SECOND,
    a_device,
    a_round,
    a_task,
    an_adapter,
    an_assignment,
    an_update,
    in_one_part,
    stored,
)

MINUTE = timedelta(minutes=1)


def a_stored_round(store: Store) -> Round:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)
    return current


def a_stored_update(store: Store, current: Round, **changes: Any) -> Update:
    device = a_device()
    assignment = an_assignment(current, device)
    update = an_update(assignment, **changes)
    stored(store, device, assignment, update)
    return read_again(store, update)


def read_again(store: Store, update: Update) -> Update:
    read = store.read("get", lambda tx: tx.updates.get(update.round_id, update.device_id))
    assert read is not None
    return read


@pytest.mark.parametrize(
    "where",
    [
        {"payload": bytes(range(256)) * 256, "payload_key": None},
        {"payload": None, "payload_key": "rounds/a/updates/b"},
    ],
)
def test_a_stored_update_is_read_back_as_it_was(store: Store, where: dict[str, Any]) -> None:
    current, device = a_stored_round(store), a_device()
    assignment = an_assignment(current, device)
    update = an_update(assignment, weight=3, shard=5, nnz=2**40, **where)
    stored(store, device, assignment, update)

    read = store.read("get", lambda tx: tx.updates.get(current.id, device.id))

    assert read is not None
    assert read.sequence > 0
    assert replace(read, sequence=0) == update


def test_an_unknown_update_is_none(store: Store) -> None:
    assert store.read("get", lambda tx: tx.updates.get(uuid4(), uuid4())) is None


def test_the_first_update_of_a_device_in_a_round_stays(store: Store) -> None:
    current, device = a_stored_round(store), a_device()
    assignment = an_assignment(current, device)
    first, second = an_update(assignment), an_update(assignment, payload=b"other")
    stored(store, device, assignment, first)

    assert not store.run("add", lambda tx: tx.updates.add_if_absent(second))

    assert store.read("ids", lambda tx: tx.updates.ids(current.id)) == [first.id]
    kept = store.read("get", lambda tx: tx.updates.get(current.id, device.id))
    assert kept is not None
    assert kept.payload == first.payload


def test_the_ledger_is_in_order_of_arrival(store: Store) -> None:
    current = a_stored_round(store)
    updates = [a_stored_update(store, current) for _ in range(5)]
    a_stored_update(store, a_stored_round(store))

    assert store.read("ids", lambda tx: tx.updates.ids(current.id)) == [one.id for one in updates]
    sequences = [one.sequence for one in updates]
    assert sequences == sorted(set(sequences))
    assert store.read("count", lambda tx: tx.updates.count(current.id)) == 5


def test_pending_updates_come_by_shard_in_ledger_order_with_their_payloads(store: Store) -> None:
    current = a_stored_round(store)
    shards = [0, 1, 0, 0, 1]
    updates = [a_stored_update(store, current, shard=shard) for shard in shards]
    a_stored_update(store, a_stored_round(store), shard=0)

    def pending(shard: int, limit: int) -> list[Update]:
        return list(store.read("pending", lambda tx: tx.updates.pending(current.id, shard, limit)))

    assert pending(0, 9) == [updates[0], updates[2], updates[3]]
    assert pending(0, 2) == [updates[0], updates[2]]
    assert pending(1, 9) == [updates[1], updates[4]]
    assert pending(2, 9) == []


def test_folded_updates_are_no_longer_pending(store: Store) -> None:
    current = a_stored_round(store)
    first, second = a_stored_update(store, current), a_stored_update(store, current)

    store.run("fold", lambda tx: tx.updates.mark_folded([first.id]))

    assert store.read("pending", lambda tx: tx.updates.pending(current.id, 0, 9)) == [second]
    assert store.read("pending", lambda tx: tx.updates.pending_count(current.id)) == 1
    assert store.read("count", lambda tx: tx.updates.count(current.id)) == 2


def test_an_update_is_folded_once(store: Store) -> None:
    current = a_stored_round(store)
    first, second = a_stored_update(store, current), a_stored_update(store, current)
    store.run("fold", lambda tx: tx.updates.mark_folded([first.id]))

    with pytest.raises(LostRace):
        store.run("fold", lambda tx: tx.updates.mark_folded([second.id, first.id]))

    assert store.read("pending", lambda tx: tx.updates.pending(current.id, 0, 9)) == [second]


def test_folding_nothing_changes_nothing(store: Store) -> None:
    current = a_stored_round(store)
    update = a_stored_update(store, current)

    store.run("fold", lambda tx: tx.updates.mark_folded([]))

    assert store.read("pending", lambda tx: tx.updates.pending(current.id, 0, 9)) == [update]


def test_thousands_of_updates_are_looked_for_at_once(store: Store) -> None:
    unknown = [uuid4() for _ in range(2_500)]

    with pytest.raises(LostRace):
        store.run("fold", lambda tx: tx.updates.mark_folded(unknown))


def test_the_summary_is_what_an_accumulator_of_the_same_updates_says(store: Store) -> None:
    current = a_stored_round(store)
    updates = [a_stored_update(store, current, weight=weight) for weight in (1, 2, 4)]
    a_stored_update(store, a_stored_round(store))
    accumulator = Accumulator.zeros(4)
    for one in updates:
        accumulator.add_parts(in_one_part(_nothing()), one.weight, one.id.bytes)

    summary = store.read("summary", lambda tx: tx.updates.summary(current.id))

    assert summary == LedgerSummary(
        count=accumulator.count, weight_sum=accumulator.weight_sum, id_xor=accumulator.id_xor
    )


def _nothing() -> SparseVector:
    return SparseVector(
        dim=4, indices=np.empty(0, dtype=np.int64), values=np.empty(0, dtype=np.float32)
    )


def test_the_summary_of_no_updates_is_zero(store: Store) -> None:
    current = a_stored_round(store)

    summary = store.read("summary", lambda tx: tx.updates.summary(current.id))

    assert summary == LedgerSummary(count=0, weight_sum=0, id_xor=bytes(32))


def test_the_summary_of_one_update_is_the_digest_of_its_identifier(store: Store) -> None:
    current = a_stored_round(store)
    update = a_stored_update(store, current, weight=5)

    summary = store.read("summary", lambda tx: tx.updates.summary(current.id))

    expected = sha256(update.id.bytes).digest()
    assert summary == LedgerSummary(count=1, weight_sum=5, id_xor=expected)


def test_scrubbing_destroys_payloads_and_keeps_the_ledger(store: Store) -> None:
    current = a_stored_round(store)
    inline = a_stored_update(store, current)
    in_blob = a_stored_update(store, current, payload=None, payload_key="rounds/a/updates/b")
    folded = a_stored_update(store, current)
    elsewhere = a_stored_update(store, a_stored_round(store))
    store.run("fold", lambda tx: tx.updates.mark_folded([folded.id]))
    before = store.read("summary", lambda tx: tx.updates.summary(current.id))

    keys = store.run("scrub", lambda tx: tx.updates.scrub(current.id))

    assert keys == ["rounds/a/updates/b"]
    for one in (inline, in_blob, folded):
        assert read_again(store, one) == replace(one, state=UpdateState.SCRUBBED, payload=None)
    assert store.read("summary", lambda tx: tx.updates.summary(current.id)) == before
    assert store.read("pending", lambda tx: tx.updates.pending_count(current.id)) == 0
    assert read_again(store, elsewhere) == elsewhere


def test_scrubbing_again_names_the_same_blobs(store: Store) -> None:
    current = a_stored_round(store)
    a_stored_update(store, current, payload=None, payload_key="rounds/a/updates/b")
    first = store.run("scrub", lambda tx: tx.updates.scrub(current.id))

    # A crash between the scrubbing and the deleting loses no key.
    assert store.run("scrub", lambda tx: tx.updates.scrub(current.id)) == first


def leased(
    store: Store, current: Round, token: UUID, *, shard: int = 0, seconds: int = 0
) -> FoldProgress | None:
    return store.run(
        "lease",
        lambda tx: tx.accumulators.lease(
            current.id, shard, token=token, now=NOW + seconds * SECOND, duration=MINUTE
        ),
    )


def test_shards_are_created_once(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 2))
    token = uuid4()
    held = leased(store, current, token, shard=1)

    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 3))

    fresh = [FoldProgress(round_id=current.id, shard=shard) for shard in (0, 2)]
    expected = [fresh[0], held, fresh[1]]
    assert store.read("all", lambda tx: tx.accumulators.all(current.id)) == expected


def test_a_shard_is_leased_to_one_writer_until_its_time_is_over(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 1))
    mine, theirs = uuid4(), uuid4()

    assert leased(store, current, mine) is not None
    assert leased(store, current, theirs, seconds=59) is None
    taken_over = leased(store, current, theirs, seconds=60)

    assert taken_over is not None
    assert taken_over.lease_token == theirs
    assert taken_over.lease_expires_at == NOW + 2 * MINUTE
    assert taken_over.version == 0


def test_a_holder_may_extend_its_lease(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 1))
    mine = uuid4()
    leased(store, current, mine)

    extended = leased(store, current, mine, seconds=30)

    assert extended is not None
    assert extended.lease_expires_at == NOW + 30 * SECOND + MINUTE


def test_a_shard_that_does_not_exist_is_not_leased(store: Store) -> None:
    current = a_stored_round(store)

    assert leased(store, current, uuid4()) is None


def test_a_commit_moves_the_version_and_ends_the_lease(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 1))
    mine = uuid4()
    progress = leased(store, current, mine)
    assert progress is not None

    summed = replace(progress, key="rounds/a/accumulators/b", updates_folded=3)
    store.run("commit", lambda tx: tx.accumulators.commit(summed, token=mine))

    assert store.read("all", lambda tx: tx.accumulators.all(current.id)) == [
        FoldProgress(
            round_id=current.id,
            shard=0,
            version=1,
            key="rounds/a/accumulators/b",
            updates_folded=3,
        )
    ]
    assert leased(store, current, uuid4()) is not None


def test_a_writer_that_lost_its_lease_commits_nothing(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 1))
    slow, quick = uuid4(), uuid4()
    stale = leased(store, current, slow)
    taken_over = leased(store, current, quick, seconds=60)
    assert stale is not None

    with pytest.raises(LostRace):
        store.run(
            "commit",
            lambda tx: tx.accumulators.commit(replace(stale, updates_folded=1), token=slow),
        )

    assert store.read("all", lambda tx: tx.accumulators.all(current.id)) == [taken_over]


def test_a_holder_with_an_old_version_commits_nothing(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 1))
    mine = uuid4()
    first = leased(store, current, mine)
    assert first is not None
    store.run("commit", lambda tx: tx.accumulators.commit(first, token=mine))
    leased(store, current, mine)

    with pytest.raises(LostRace):
        store.run("commit", lambda tx: tx.accumulators.commit(first, token=mine))


def test_only_the_holder_releases_a_shard(store: Store) -> None:
    current = a_stored_round(store)
    store.run("ensure", lambda tx: tx.accumulators.ensure(current.id, 1))
    mine, theirs = uuid4(), uuid4()
    leased(store, current, mine)

    store.run("release", lambda tx: tx.accumulators.release(current.id, 0, token=theirs))
    assert leased(store, current, theirs) is None
    store.run("release", lambda tx: tx.accumulators.release(current.id, 0, token=mine))
    assert leased(store, current, theirs) is not None


def test_a_stored_adapter_is_read_back_as_it_was(store: Store) -> None:
    task = a_task()
    origin = a_round(task, state=RoundState.PUBLISHED)
    first, second = an_adapter(task), an_adapter(task, origin)
    stored(store, task, origin, first, second)

    assert store.read("get", lambda tx: tx.adapters.get(task.id, 0)) == first
    assert store.read("get", lambda tx: tx.adapters.get(task.id, 1)) == second
    assert store.read("get", lambda tx: tx.adapters.get(task.id, 2)) is None


def test_a_version_is_published_once(store: Store) -> None:
    task = a_task()
    first = an_adapter(task)
    stored(store, task, first)

    with pytest.raises(LostRace):
        stored(store, an_adapter(task, weights_key="adapters/other"))

    assert store.read("latest", lambda tx: tx.adapters.latest(task.id)) == first


def test_adapters_are_paged_newest_first(store: Store) -> None:
    task, other = a_task(), a_task()
    rounds = [
        a_round(task, state=RoundState.PUBLISHED, number=number, base_version=number - 1)
        for number in (1, 2, 3)
    ]
    adapters = [an_adapter(task), *(an_adapter(task, origin) for origin in rounds)]
    stored(store, task, other, *rounds, *adapters, an_adapter(other))

    def page(limit: int, before: int | None) -> list[int]:
        found = store.read(
            "page", lambda tx: tx.adapters.page(task.id, limit=limit, before_version=before)
        )
        return [adapter.version for adapter in found]

    assert page(2, None) == [3, 2]
    assert page(9, 2) == [1, 0]
    assert page(9, 0) == []
    assert store.read("latest", lambda tx: tx.adapters.latest(task.id)) == adapters[3]
    assert store.read("latest", lambda tx: tx.adapters.latest(uuid4())) is None
    asked = [task.id, other.id, uuid4()]
    versions = store.read("latest", lambda tx: tx.adapters.latest_versions(asked))
    assert versions == {task.id: 3, other.id: 0}
