"""Reads that several routes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

from admin_api.schemas.common import Page
from admin_api.schemas.rounds import RoundView
from admin_api.schemas.tasks import TaskSummary
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["describe_round", "find_round", "find_task", "page_of", "summarize_task"]

T = TypeVar("T")
V = TypeVar("V")


def find_task(tx: Transaction, reference: str) -> Task:
    """By id or by name. Refuses TASK_UNKNOWN."""
    task = None
    with suppress(ValueError):
        task = tx.tasks.get(UUID(reference))
    # No name has a NUL, which PostgreSQL does not take as text.
    if task is None and "\0" not in reference:
        task = tx.tasks.get_by_name(reference)
    if task is None:
        raise Refusal(Reason.TASK_UNKNOWN, "no task has this id or name", task=reference)
    return task


def find_round(tx: Transaction, round_id: UUID) -> Round:
    """Refuses ROUND_UNKNOWN."""
    found = tx.rounds.get(round_id)
    if found is None:
        raise Refusal(Reason.ROUND_UNKNOWN, "no such round", round_id=str(round_id))
    return found


def summarize_task(tx: Transaction, task: Task) -> TaskSummary:
    adapter = tx.adapters.latest(task.id)
    return TaskSummary.of(
        task,
        latest_version=0 if adapter is None else adapter.version,
        latest_round=tx.rounds.latest(task.id),
    )


def describe_round(tx: Transaction, shown: Round, dimension: int) -> RoundView:
    return RoundView.of(
        shown,
        tx.assignments.figures(shown.id),
        tx.rejections.by_reason(shown.id),
        dimension,
        tx.reservations.get(shown.id),
    )


def page_of(
    found: Sequence[T], limit: int, show: Callable[[T], V], cursor: Callable[[T], object]
) -> Page[V]:
    """The first `limit` of up to limit + 1 items: one more than a page tells that there is more."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(
        items=[show(item) for item in shown],
        next_cursor=str(cursor(shown[-1])) if more else None,
    )
