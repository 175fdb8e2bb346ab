"""What every store keeps of updates that were taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from aggregator_service.domain.rounds import Round
from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.store.base import LostRace, Store
from tests.contract.test_store_ledger import a_stored_round, a_stored_update, read_again

KEY = "rounds/a/updates/b"


def retract(store: Store, update: Update) -> Update:
    return store.run("retract", lambda tx: tx.updates.retract(update))


def fold(store: Store, *updates: Update) -> list[Update]:
    store.run("fold", lambda tx: tx.updates.mark_folded([one.id for one in updates]))
    return [read_again(store, one) for one in updates]


def take_out(store: Store, *updates: Update) -> None:
    store.run("out", lambda tx: tx.updates.mark_retracted([one.id for one in updates]))


def pending(store: Store, current: Round) -> Sequence[Update]:
    return store.read("pending", lambda tx: tx.updates.pending(current.id, 0, 9))


def counts(store: Store, current: Round) -> tuple[int, int, int]:
    """The accepted set, what accumulators have yet to learn, and what they have yet to lose."""
    return store.read(
        "counts",
        lambda tx: (
            tx.updates.count(current.id),
            tx.updates.pending_count(current.id),
            tx.updates.retracting_count(current.id),
        ),
    )


def test_an_update_that_nothing_holds_is_retracted_with_its_payload(store: Store) -> None:
    current = a_stored_round(store)
    update, other = a_stored_update(store, current), a_stored_update(store, current)

    retracted = retract(store, update)

    assert retracted == replace(update, state=UpdateState.RETRACTED, payload=None)
    assert read_again(store, update) == retracted
    assert pending(store, current) == [other]
    assert counts(store, current) == (1, 1, 0)


def test_an_update_that_is_folded_waits_with_its_payload_to_be_taken_out(store: Store) -> None:
    current = a_stored_round(store)
    first, second = a_stored_update(store, current), a_stored_update(store, current)
    (folded,) = fold(store, first)

    retracting = retract(store, folded)

    assert retracting == replace(first, state=UpdateState.RETRACTING)
    assert pending(store, current) == [retracting, second]
    assert counts(store, current) == (1, 2, 1)

    take_out(store, retracting)

    retracted = replace(first, state=UpdateState.RETRACTED, payload=None)
    assert read_again(store, first) == retracted
    assert pending(store, current) == [second]
    assert counts(store, current) == (1, 1, 0)


def test_retracted_updates_are_no_part_of_the_accepted_set(store: Store) -> None:
    current = a_stored_round(store)
    kept, gone, going = (a_stored_update(store, current, weight=weight) for weight in (1, 2, 4))
    alone = a_stored_round(store)
    before = store.read("summary", lambda tx: tx.updates.summary(alone.id))
    (folded,) = fold(store, going)
    retract(store, gone)
    retract(store, folded)

    summary = store.read("summary", lambda tx: tx.updates.summary(current.id))

    assert (summary.count, summary.weight_sum) == (1, 1)
    assert store.read("ids", lambda tx: tx.updates.ids(current.id)) == [kept.id]
    retract(store, kept)
    assert store.read("summary", lambda tx: tx.updates.summary(current.id)) == before


def test_a_retraction_of_what_has_meanwhile_been_folded_is_lost(store: Store) -> None:
    current = a_stored_round(store)
    update = a_stored_update(store, current)
    (folded,) = fold(store, update)

    with pytest.raises(LostRace):
        retract(store, update)

    assert read_again(store, update) == folded


def test_a_fold_of_what_has_meanwhile_been_retracted_is_lost(store: Store) -> None:
    current = a_stored_round(store)
    first, second = a_stored_update(store, current), a_stored_update(store, current)
    retract(store, second)

    with pytest.raises(LostRace):
        fold(store, first, second)

    assert read_again(store, first) == first


def test_only_what_is_being_retracted_is_taken_out_and_only_once(store: Store) -> None:
    current = a_stored_round(store)
    first, second = a_stored_update(store, current), a_stored_update(store, current)
    folded = fold(store, first, second)
    retracting = retract(store, folded[0])

    with pytest.raises(LostRace):
        take_out(store, retracting, folded[1])
    assert read_again(store, first) == retracting

    take_out(store, retracting)
    with pytest.raises(LostRace):
        take_out(store, retracting)


def test_the_blobs_of_retracted_updates_are_known_until_the_round_is_over(store: Store) -> None:
    current = a_stored_round(store)
    a_stored_update(store, current, payload=None, payload_key="rounds/a/updates/counts")
    a_stored_update(store, a_stored_round(store), payload=None, payload_key="rounds/b/updates/c")
    in_blob = a_stored_update(store, current, payload=None, payload_key=KEY)
    inline = a_stored_update(store, current)

    def keys() -> list[str | None]:
        retracted = store.read("retracted", lambda tx: tx.updates.retracted(current.id))
        return [one.payload_key for one in retracted]

    (folded,) = fold(store, in_blob)
    retracting = retract(store, folded)
    retract(store, inline)
    # The other one's is still needed.
    assert keys() == [None]
    take_out(store, retracting)
    assert keys() == [KEY, None]


def test_scrubbing_leaves_retracted_what_was_retracted(store: Store) -> None:
    current = a_stored_round(store)
    gone, going, kept = (a_stored_update(store, current) for _ in range(3))
    (folded,) = fold(store, going)
    retract(store, gone)
    retract(store, folded)

    store.run("scrub", lambda tx: tx.updates.scrub(current.id))

    states = [read_again(store, one).state for one in (gone, going, kept)]
    assert states == [UpdateState.RETRACTED, UpdateState.RETRACTED, UpdateState.SCRUBBED]
    assert {read_again(store, one).payload for one in (gone, going, kept)} == {None}
    assert counts(store, current) == (1, 0, 0)
