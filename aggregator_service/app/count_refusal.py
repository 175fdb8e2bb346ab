"""Refusals of known devices are counted by reason, for operators."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from aggregator_service.store.base import Store
from flasc_core.errors import Refusal

__all__ = ["CountRefusal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRefusal:
    store: Store

    def __call__(self, refusal: Refusal) -> None:
        """Adds one under the round that the refusal's facts name, if they name one."""
        task_id, round_id = (_uuid(refusal, name) for name in ("task_id", "round_id"))
        self.store.run(
            "count_refusal",
            lambda tx: tx.rejections.count(refusal.reason, task_id=task_id, round_id=round_id),
        )


def _uuid(refusal: Refusal, name: str) -> UUID | None:
    value = refusal.facts.get(name)
    return UUID(str(value)) if value is not None else None
