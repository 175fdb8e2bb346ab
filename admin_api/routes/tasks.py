"""Tasks: create, list, show, totals, pause, resume, cancel."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path

from admin_api.lookup import find_task, page_of, summarize_task, summarize_tasks
from admin_api.problems import refusals
from admin_api.schemas.common import Page
from admin_api.schemas.tasks import TaskDetail, TaskSummary, TaskTotals
from admin_api.services import Limit, Services, ServicesDep, UuidCursor
from admin_api.task_upload import REQUEST_BODY, TaskUpload, read_task_upload
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.import_adapter import read_adapter
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.domain.privacy import Budget
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import Transaction
from flasc_core.errors import Reason

__all__ = ["TaskRef", "router"]

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

TaskRef = Annotated[str, Path(description="A task's id or name.", examples=["debian-sections"])]
UploadDep = Annotated[TaskUpload, Depends(read_task_upload)]


@router.post(
    "",
    status_code=201,
    openapi_extra={"requestBody": REQUEST_BODY},
    responses=refusals(
        Reason.MALFORMED_MESSAGE,
        Reason.MESSAGE_TOO_LARGE,
        Reason.NAME_TAKEN,
        Reason.CONFIGURATION,
        Reason.FIELD_REQUIRED,
        Reason.FIELD_RANGE,
        Reason.LAYOUT_MISMATCH,
        Reason.NON_FINITE,
    ),
)
def create_task(services: ServicesDep, upload: UploadDep) -> TaskDetail:
    """Create a task with its version 0, and its first round with it."""
    config = upload.config.to_domain()
    weights = read_adapter(config.layout, upload.adapter)
    create = CreateTask(store=services.store, blobs=services.blobs, now=services.now)
    return _detail(services, create(upload.name, config, weights).id)


@router.get("")
def list_tasks(
    services: ServicesDep, limit: Limit = 50, cursor: UuidCursor = None
) -> Page[TaskSummary]:
    """List tasks, newest first."""

    def body(tx: Transaction) -> Page[TaskSummary]:
        found = tx.tasks.page(limit=limit + 1, after=cursor)
        return page_of(found, limit, partial(summarize_tasks, tx), lambda task: task.id)

    return services.store.read("list_tasks", body)


@router.get("/{task}", responses=refusals(Reason.TASK_UNKNOWN))
def get_task(services: ServicesDep, task: TaskRef) -> TaskDetail:
    """Show a task with its configuration."""
    return _detail(services, task)


@router.get("/{task}/totals", responses=refusals(Reason.TASK_UNKNOWN))
def get_task_totals(services: ServicesDep, task: TaskRef) -> TaskTotals:
    """Add up all rounds of a task, together and by tier."""

    def body(tx: Transaction) -> TaskTotals:
        owner = find_task(tx, task)
        by_tier = tx.assignments.rounds_by_tier(owner.id)
        return TaskTotals.of(by_tier, tx.rejections.of_task(owner.id), owner.config.layout.dim)

    return services.store.read("task_totals", body)


@router.post("/{task}/pause", responses=refusals(Reason.TASK_UNKNOWN, Reason.TASK_STATE))
def pause_task(services: ServicesDep, task: TaskRef) -> TaskSummary:
    """Open no more rounds and assign no more devices; updates on their way still count."""
    return _steer(services, task, TaskState.PAUSED)


@router.post("/{task}/resume", responses=refusals(Reason.TASK_UNKNOWN, Reason.TASK_STATE))
def resume_task(services: ServicesDep, task: TaskRef) -> TaskSummary:
    """Go on with a paused task."""
    return _steer(services, task, TaskState.RUNNING)


@router.post("/{task}/cancel", responses=refusals(Reason.TASK_UNKNOWN, Reason.TASK_STATE))
def cancel_task(services: ServicesDep, task: TaskRef) -> TaskSummary:
    """End a task for good and abort its round; published versions stay."""
    return _steer(services, task, TaskState.CANCELLED)


def _steer(services: Services, reference: str, state: TaskState) -> TaskSummary:
    task = services.store.read("find_task", lambda tx: find_task(tx, reference))
    moved = SteerTask(store=services.store, now=services.now)(task.id, state)
    return services.store.read("summarize_task", lambda tx: summarize_task(tx, moved))


def _detail(services: Services, reference: str | UUID) -> TaskDetail:
    def body(tx: Transaction) -> tuple[Task, TaskSummary, Budget]:
        task = find_task(tx, str(reference))
        return task, summarize_task(tx, task), tx.reservations.budget(task.id)

    return TaskDetail.detailed(*services.store.read("show_task", body))
