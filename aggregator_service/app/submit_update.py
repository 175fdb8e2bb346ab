"""A device hands in one locally trained update.

Everything that can be checked without the ledger is checked before the transaction, so that a bad
payload never holds a lock; the payload is durable before the transaction that counts it, and the
receipt is made after that has committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID, uuid4

from aggregator_service.app.own_assignment import Work, own_assignment, own_work
from aggregator_service.app.private_cohort import has_taken_part
from aggregator_service.app.upload_rules import (
    Receipt,
    UpdateHeader,
    check_header,
    check_payload,
    check_repeats,
    check_size,
    repeated,
    upload_rule,
)
from aggregator_service.domain.assignments import Assignment, AssignmentState
from aggregator_service.domain.events import Event
from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.store.base import Lock, Store, StoreUnavailable, Transaction
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role
from flasc_core.methods import check_upload, mask_composition
from flasc_core.wire import DecodeLimits, Part, decode_segments

__all__ = ["SubmitUpdate"]

# Up to this size a payload lives in its row; larger ones are blobs.
INLINE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitUpdate:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(
        self, device_id: UUID, header: UpdateHeader, payload: bytes, *, is_charged: bool = False
    ) -> Receipt:
        """Counts the update once; the same payload again gets the same receipt.

        Refuses what device_service.proto lists for SubmitUpdate. A refused update changes nothing
        but the byte ledger, which has the payload's bytes already where it `is_charged`.
        """
        due = 0 if is_charged else len(payload)
        work = self.store.read(
            "submit_look", lambda tx: own_work(tx, device_id, header.assignment_id)
        )
        try:
            return self._submit(work, header, payload, due)
        except Refusal as refusal:
            self._charge("charge_refused_upload", work, due)
            raise refusal.about(round_id=str(work.round.id), task_id=str(work.task.id)) from refusal

    def charge(self, device_id: UUID, assignment_id: UUID, payload_bytes: int) -> None:
        """Enters a payload that arrived, but can not be handed in, into the byte ledger.

        Refuses ASSIGNMENT_UNKNOWN.
        """

        def add(tx: Transaction) -> None:
            assignment = own_assignment(tx, device_id, assignment_id)
            tx.assignments.add_bytes(assignment.id, up=payload_bytes)

        self.store.run("charge_unread_upload", add)

    def _charge(self, name: str, work: Work, due: int) -> None:
        if due:
            self.store.run(name, lambda tx: tx.assignments.add_bytes(work.assignment.id, up=due))

    def _submit(self, work: Work, header: UpdateHeader, payload: bytes, due: int) -> Receipt:
        check_payload(header, payload)
        check_size(work, len(payload))
        check_header(work, header)
        known = self.store.read(
            "submit_known",
            lambda tx: tx.updates.get(work.round.id, work.assignment.device_id),
        )
        if known is not None:
            check_repeats(known, header.payload_sha256)
            self._charge("charge_repeated_upload", work, due)
            return repeated(known, work.round.policy)
        now = self.now()
        work.round.check_admits(now)
        work.assignment.check_open(now)
        update, composition = self._checked(work, header, payload)
        if update.payload_key is not None:
            try:
                self.blobs.put(update.payload_key, payload)
            except StoreUnavailable:
                self._charge("charge_unkept_upload", work, due)
                raise
        try:
            receipt = self.store.run(
                "submit_update", lambda tx: self._accept(tx, work, header, update, composition, due)
            )
        except Refusal:
            self._drop_blob(update)
            raise
        if receipt.update.id != update.id:
            self._drop_blob(update)
        return receipt

    def _drop_blob(self, update: Update) -> None:
        # No row names it: every attempt has a blob of its own, so that one which fails never takes
        # the payload of another one that is accepted at the same time.
        if update.payload_key is not None:
            self.blobs.delete(update.payload_key)

    def _checked(
        self, work: Work, header: UpdateHeader, payload: bytes
    ) -> tuple[Update, Mapping[Role, int]]:
        """Return the update, and how its values divide."""
        config = work.task.config
        rule = upload_rule(work)
        limits = DecodeLimits(
            dim=config.layout.dim,
            max_nnz=rule.max_count,
            max_abs_value=config.limits.max_abs_value,
            encodings=frozenset(config.encodings.updates),
        )
        # One segment at a time, and none kept while the next is read: all of them, unpacked, take
        # several times the payload's bytes.
        composition: Counter[Role] = Counter()
        for counts in map(partial(_count_roles, config.layout), decode_segments(payload, limits)):
            composition.update(counts)
        check_upload(composition, rule)
        update_id = uuid4()
        inline = len(payload) <= INLINE_BYTES
        key = f"rounds/{work.round.id}/updates/{update_id}-{header.payload_sha256.hex()}"
        update = Update(
            id=update_id,
            round_id=work.round.id,
            device_id=work.assignment.device_id,
            assignment_id=work.assignment.id,
            state=UpdateState.ACCEPTED,
            payload_sha256=header.payload_sha256,
            payload_bytes=len(payload),
            nnz=composition.total(),
            weight=header.weight,
            shard=update_id.int % config.fold_shards,
            accepted_at=self.now(),
            payload=payload if inline else None,
            payload_key=None if inline else key,
        )
        return update, composition

    def _accept(
        self,
        tx: Transaction,
        work: Work,
        header: UpdateHeader,
        update: Update,
        composition: Mapping[Role, int],
        due: int,
    ) -> Receipt:
        # Shared, so that uploads do not queue behind one another's commits, while the closer
        # waits for all of them.
        current = tx.rounds.get(work.round.id, Lock.SHARED)
        if current is None:
            raise AssertionError("rounds are never removed")
        added = tx.updates.add_if_absent(update)
        tx.assignments.add_bytes(work.assignment.id, up=due)
        stored = tx.updates.get(update.round_id, update.device_id)
        if stored is None:
            raise AssertionError("the update was there or has just been added")
        if not added:
            check_repeats(stored, header.payload_sha256)
            return repeated(stored, current.policy)
        current.check_admits(update.accepted_at)
        assignment = own_assignment(tx, update.device_id, update.assignment_id)
        assignment.check_open(update.accepted_at)
        _check_cap(tx, work, assignment)
        tx.assignments.save(
            assignment.end(
                AssignmentState.ACCEPTED,
                update.accepted_at,
                training_metrics=header.training_metrics,
                evaluation=header.evaluation,
                values_by_role=composition,
                steps_down=header.steps_down and _may_step_down(work),
            )
        )
        tx.events.append(
            Event(
                task_id=current.task_id,
                round_id=current.id,
                state=current.state,
                at=update.accepted_at,
            )
        )
        return Receipt(update=stored, duplicate=False, policy=current.policy)


def _may_step_down(work: Work) -> bool:
    plan = work.task.config.plan(work.round.index, work.assignment.tier)
    return plan.training.rank_penalty is not None


def _count_roles(layout: AdapterLayout, part: Part) -> dict[Role, int]:
    return mask_composition(layout, part[0])


def _check_cap(tx: Transaction, work: Work, assignment: Assignment) -> None:
    """Check-in saw to it already; here it holds whatever happened in between."""
    if has_taken_part(tx, work.task, assignment.device_id):
        raise Refusal(
            Reason.ASSIGNMENT_EXPIRED,
            "this device has taken part as often as the task's privacy allows",
            assignment_id=str(assignment.id),
        )
