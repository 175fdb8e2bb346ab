"""Reads that several routes share; each of a list takes as many statements as of one item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

__all__ = [
    "describe_round",
    "describe_rounds",
    "find_round",
    "find_task",
    "page_of",
    "summarize_task",
    "summarize_tasks",
]

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
    return summarize_tasks(tx, [task])[0]


def summarize_tasks(tx: Transaction, tasks: Sequence[Task]) -> list[TaskSummary]:
    task_ids = [task.id for task in tasks]
    versions = tx.adapters.latest_versions(task_ids)
    rounds = tx.rounds.latest_of(task_ids)
    return [
        TaskSummary.of(
            task, latest_version=versions.get(task.id, 0), latest_round=rounds.get(task.id)
        )
        for task in tasks
    ]


def describe_round(tx: Transaction, shown: Round, dimension: int) -> RoundView:
    return describe_rounds(tx, [shown], dimension)[0]


def describe_rounds(tx: Transaction, rounds: Sequence[Round], dimension: int) -> list[RoundView]:
    """Of one task's rounds; `dimension` is its layout's."""
    round_ids = [shown.id for shown in rounds]
    figures = tx.assignments.figures(round_ids)
    refused = tx.rejections.by_round(round_ids)
    reservations = tx.reservations.of_rounds(round_ids)
    return [
        RoundView.of(
            shown, figures[shown.id], refused[shown.id], dimension, reservations.get(shown.id)
        )
        for shown in rounds
    ]


def page_of(
    found: Sequence[T],
    limit: int,
    show: Callable[[Sequence[T]], Iterable[V]],
    cursor: Callable[[T], object],
) -> Page[V]:
    """The first `limit` of up to limit + 1 items: one more than a page tells that there is more."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(
        items=list(show(shown)),
        next_cursor=str(cursor(shown[-1])) if more else None,
    )
