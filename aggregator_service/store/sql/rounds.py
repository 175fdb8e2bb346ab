"""Rounds and their cohorts' seats in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, insert, select, update

from aggregator_service.domain.rounds import (
    AbortReason,
    DownloadFile,
    Round,
    RoundKind,
    RoundState,
)
from aggregator_service.store.base import Lock, LostRace
from aggregator_service.store.sql.config_json import (
    downloads_from_text,
    downloads_to_text,
    policy_from_text,
    policy_to_text,
    roles_from_text,
    roles_to_text,
)
from aggregator_service.store.sql.statements import insert_if_absent, locked
from aggregator_service.store.sql.tables import cohorts, rounds

__all__ = ["SqlRounds"]


@dataclass(frozen=True, slots=True)
class SqlRounds:
    connection: Connection

    def add(self, new: Round) -> None:
        if not insert_if_absent(self.connection, rounds, _to_row(new), "task_id", "number"):
            raise LostRace(f"task {new.task_id} has a round {new.number} already")
        self.connection.execute(insert(cohorts).values(round_id=new.id, seats_taken=0))

    def get(self, round_id: UUID, lock: Lock = Lock.NONE) -> Round | None:
        query = select(rounds).where(rounds.c.id == round_id)
        query = locked(self.connection, query, round_id, lock)
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def numbered(self, task_id: UUID, number: int) -> Round | None:
        query = select(rounds).where(rounds.c.task_id == task_id, rounds.c.number == number)
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def latest(self, task_id: UUID) -> Round | None:
        newest = self.page(task_id, limit=1, before_number=None)
        return newest[0] if newest else None

    def latest_of(self, task_ids: Collection[UUID]) -> Mapping[UUID, Round]:
        newest = (
            select(rounds.c.task_id, func.max(rounds.c.number).label("number"))
            .where(rounds.c.task_id.in_(task_ids))
            .group_by(rounds.c.task_id)
            .subquery()
        )
        query = select(rounds).join(
            newest, (rounds.c.task_id == newest.c.task_id) & (rounds.c.number == newest.c.number)
        )
        return {row.task_id: _from_row(row) for row in self.connection.execute(query)}

    def page(self, task_id: UUID, *, limit: int, before_number: int | None) -> Sequence[Round]:
        query = select(rounds).where(rounds.c.task_id == task_id)
        if before_number is not None:
            query = query.where(rounds.c.number < before_number)
        query = query.order_by(rounds.c.number.desc()).limit(limit)
        return [_from_row(row) for row in self.connection.execute(query)]

    def save(self, changed: Round) -> None:
        query = update(rounds).where(
            rounds.c.id == changed.id, rounds.c.revision == changed.revision
        )
        row = _to_row(changed) | {"revision": changed.revision + 1}
        if self.connection.execute(query.values(row)).rowcount != 1:
            raise LostRace(f"round {changed.id} has moved past revision {changed.revision}")

    def take_seat(self, round_id: UUID, seats: int) -> bool:
        query = update(cohorts).where(cohorts.c.round_id == round_id, cohorts.c.seats_taken < seats)
        taken = query.values(seats_taken=cohorts.c.seats_taken + 1)
        return self.connection.execute(taken).rowcount == 1

    def free_seats(self, round_id: UUID, count: int) -> None:
        query = update(cohorts).where(
            cohorts.c.round_id == round_id, cohorts.c.seats_taken >= count
        )
        freed = query.values(seats_taken=cohorts.c.seats_taken - count)
        if self.connection.execute(freed).rowcount != 1:
            raise AssertionError(f"round {round_id} has fewer than {count} seats taken")


def _to_row(value: Round) -> dict[str, object]:
    download = value.downloads.get("")
    others = {tier: file for tier, file in value.downloads.items() if tier}
    return {
        "id": value.id,
        "task_id": value.task_id,
        "number": value.number,
        "kind": value.kind.value,
        "state": value.state.value,
        "policy": policy_to_text(value.policy),
        "base_version": value.base_version,
        "created_at": value.created_at,
        "opened_at": value.opened_at,
        "closed_at": value.closed_at,
        "ended_at": value.ended_at,
        "download_key": None if download is None else download.key,
        "download_sha256": None if download is None else download.sha256,
        "download_size_bytes": None if download is None else download.size_bytes,
        "download_nnz": None if download is None else download.nnz,
        "tier_downloads": downloads_to_text(others),
        "download_roles": roles_to_text(value.downloads),
        "accepted_updates": value.accepted_updates,
        "manifest_sha256": value.manifest_sha256,
        "abort_reason": None if value.abort_reason is None else value.abort_reason.value,
        "revision": value.revision,
    }


def _from_row(row: Row[Any]) -> Round:
    return Round(
        id=row.id,
        task_id=row.task_id,
        number=row.number,
        kind=RoundKind(row.kind),
        state=RoundState(row.state),
        policy=policy_from_text(row.policy),
        base_version=row.base_version,
        created_at=row.created_at,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        ended_at=row.ended_at,
        downloads=_downloads_from_row(row),
        accepted_updates=row.accepted_updates,
        manifest_sha256=row.manifest_sha256,
        abort_reason=None if row.abort_reason is None else AbortReason(row.abort_reason),
        revision=row.revision,
    )


def _downloads_from_row(row: Row[Any]) -> dict[str, DownloadFile]:
    if row.download_key is None:
        return {}
    files = {"": _common_download(row), **downloads_from_text(row.tier_downloads)}
    roles = roles_from_text(row.download_roles)
    return {tier: replace(file, values_by_role=roles.get(tier, {})) for tier, file in files.items()}


def _common_download(row: Row[Any]) -> DownloadFile:
    return DownloadFile(
        key=row.download_key,
        sha256=row.download_sha256,
        size_bytes=row.download_size_bytes,
        nnz=row.download_nnz,
    )
