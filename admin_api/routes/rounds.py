"""Rounds: list, show, assignments, retract an update, abort."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path

from admin_api.lookup import (
    describe_round,
    describe_rounds,
    find_round,
    find_task,
    page_of,
)
from admin_api.problems import refusals
from admin_api.routes.tasks import TaskRef
from admin_api.schemas.common import Page
from admin_api.schemas.rounds import AssignmentView, Retraction, RoundView
from admin_api.services import Limit, NumberCursor, Services, ServicesDep, UuidCursor
from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.store.base import Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["rounds"])

RoundId = Annotated[UUID, Path(examples=["7f8c1d52-3c1e-4a7b-9d5b-0e2f6a1c4b8d"])]
RoundNumber = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[8])]
DeviceId = Annotated[UUID, Path(examples=["0b54ad2e-6d6f-4f0c-8f0e-3a5d1c9b7e21"])]


@router.get("/tasks/{task}/rounds", responses=refusals(Reason.TASK_UNKNOWN))
def list_rounds(
    services: ServicesDep, task: TaskRef, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[RoundView]:
    """List a task's rounds with their figures, newest first."""

    def body(tx: Transaction) -> Page[RoundView]:
        owner = find_task(tx, task)
        found = tx.rounds.page(owner.id, limit=limit + 1, before_number=cursor)
        dimension = owner.config.layout.dim
        show = partial(describe_rounds, tx, dimension=dimension)
        return page_of(found, limit, show, lambda shown: shown.number)

    return services.store.read("list_rounds", body)


@router.get(
    "/tasks/{task}/rounds/{number}", responses=refusals(Reason.TASK_UNKNOWN, Reason.ROUND_UNKNOWN)
)
def get_numbered_round(services: ServicesDep, task: TaskRef, number: RoundNumber) -> RoundView:
    """Show a task's round with its figures."""

    def body(tx: Transaction) -> RoundView:
        owner = find_task(tx, task)
        shown = tx.rounds.numbered(owner.id, number)
        if shown is None:
            raise Refusal(
                Reason.ROUND_UNKNOWN, f"task {owner.name} has no round {number}", number=number
            )
        return describe_round(tx, shown, owner.config.layout.dim)

    return services.store.read("show_numbered_round", body)


@router.get("/rounds/{round_id}", responses=refusals(Reason.ROUND_UNKNOWN))
def get_round(services: ServicesDep, round_id: RoundId) -> RoundView:
    """Show a round with its figures."""
    return _show(services, round_id)


@router.get("/rounds/{round_id}/assignments", responses=refusals(Reason.ROUND_UNKNOWN))
def list_assignments(
    services: ServicesDep, round_id: RoundId, limit: Limit = 50, cursor: UuidCursor = None
) -> Page[AssignmentView]:
    """List the devices of a round and what became of each, in order of assignment id."""

    def body(tx: Transaction) -> Page[AssignmentView]:
        find_round(tx, round_id)
        found = tx.assignments.page(round_id, limit=limit + 1, after=cursor)
        show = partial(map, AssignmentView.of)
        return page_of(found, limit, show, lambda record: record.assignment.id)

    return services.store.read("list_assignments", body)


@router.post(
    "/rounds/{round_id}/updates/{device_id}/retract",
    responses=refusals(
        Reason.ROUND_UNKNOWN, Reason.UPDATE_UNKNOWN, Reason.ROUND_CLOSED, Reason.FIELD_REQUIRED
    ),
)
def retract_update(
    services: ServicesDep, round_id: RoundId, device_id: DeviceId, retraction: Retraction
) -> RoundView:
    """Take a device's update out of a round that still collects, and destroy its payload.

    The round goes on as if the device had not taken part. Repeating is harmless.
    """
    retract = RetractUpdate(store=services.store, blobs=services.blobs, now=services.now)
    retract(round_id, device_id, retraction.reason)
    return _show(services, round_id)


@router.post("/rounds/{round_id}/abort", responses=refusals(Reason.ROUND_UNKNOWN))
def abort_round(services: ServicesDep, round_id: RoundId) -> RoundView:
    """End a round without an adapter; the task goes on with the next one.

    A round that has already ended stays as it is.
    """
    AbortRound(store=services.store, now=services.now)(round_id)
    return _show(services, round_id)


def _show(services: Services, round_id: UUID) -> RoundView:
    def body(tx: Transaction) -> RoundView:
        shown = find_round(tx, round_id)
        task = find_task(tx, str(shown.task_id))
        return describe_round(tx, shown, task.config.layout.dim)

    return services.store.read("show_round", body)
