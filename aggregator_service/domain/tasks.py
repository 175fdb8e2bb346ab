"""A task: one adapter to fine-tune, how, and until when.

RUNNING ◀──resume / pause──▶ PAUSED
   │  rounds done, target met   │
   ▼                            ▼
COMPLETED                  CANCELLED  (from either)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final
from uuid import UUID

from aggregator_service.domain.privacy import Privacy
from aggregator_service.domain.rounds import RoundPolicy
from flasc_core.base import Base, ZeroBase
from flasc_core.errors import Reason, Refusal
from flasc_core.fold import check_headroom
from flasc_core.layout import AdapterLayout
from flasc_core.methods import Averaging, Method, RoundPlan
from flasc_core.server_update import ServerOptimizer
from flasc_core.wire import Encoding

__all__ = [
    "TRANSITIONS",
    "BaseModel",
    "Encodings",
    "Ending",
    "Task",
    "TaskConfig",
    "TaskState",
    "Tier",
    "TrainingPlan",
    "UpdateLimits",
]

# See docs/decisions: what it costs in accuracy, and what it saves.
COMPACT: Final = Encoding.parse("int6")
ZERO_BASE: Final = ZeroBase()
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@unique
class TaskState(StrEnum):
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Final[Mapping[TaskState, frozenset[TaskState]]] = MappingProxyType(
    {
        TaskState.RUNNING: frozenset({TaskState.PAUSED, TaskState.COMPLETED, TaskState.CANCELLED}),
        TaskState.PAUSED: frozenset({TaskState.RUNNING, TaskState.CANCELLED}),
        TaskState.COMPLETED: frozenset(),
        TaskState.CANCELLED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    name: str
    # Over name, shape, dtype and bytes of the frozen tensors.
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Local SGD on a device."""

    learning_rate: float
    batch_size: int = 16
    local_epochs: int = 1
    # 0: as many as the epochs give.
    max_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 0.0

    def check(self) -> None:
        sound = (
            0.0 < self.learning_rate < 1e6
            and self.batch_size >= 1
            and self.local_epochs >= 1
            and self.max_steps >= 0
            and 0.0 <= self.momentum < 1.0
            and 0.0 <= self.weight_decay < 1e6
        )
        if not sound:
            raise Refusal(
                Reason.CONFIGURATION,
                "training plan: learning_rate must be positive, batch_size and local_epochs at "
                "least 1, max_steps and weight_decay not negative, momentum in [0, 1)",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateLimits:
    """Bounds that keep exact sums from overflowing, checked when a task is created."""

    max_abs_value: float = 64.0
    # Above 1, updates are weighted by the examples they declare, up to this many.
    max_weight: int = 1
    largest_cohort: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Encodings:
    """How sparse vectors are written; of devices, these and the plain profile are accepted."""

    download: Encoding = COMPACT
    # In order of preference: a device takes the first one that it can write.
    updates: tuple[Encoding, ...] = (COMPACT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """When a task is done: after so many published rounds, or earlier at a target accuracy."""

    rounds: int
    # Fraction of held-out examples that devices get right, weighted by their number.
    target_accuracy: float | None = None
    # A last round in which devices only score the final adapter.
    final_evaluation: bool = True

    def check(self) -> None:
        target = self.target_accuracy
        if self.rounds < 1 or (target is not None and not 0.0 < target <= 1.0):
            raise Refusal(
                Reason.CONFIGURATION,
                "ending: rounds must be at least 1 and target_accuracy in (0, 1]",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Devices that run a method of their own; updates of all tiers make one adapter."""

    name: str
    method: Method


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """Everything about a task that never changes."""

    layout: AdapterLayout
    base_model: BaseModel
    peft_config_json: str
    training: TrainingPlan
    method: Method
    optimizer: ServerOptimizer
    policy: RoundPolicy
    ending: Ending
    limits: UpdateLimits = UpdateLimits()
    encodings: Encodings = Encodings()
    # What downloads are relative to.
    base: Base = ZERO_BASE
    # Devices of no tier, or of one that is not listed, run `method`.
    tiers: tuple[Tier, ...] = ()
    # Accumulators per round; more of them let more drivers fold one round at once.
    fold_shards: int = 1
    # None: updates are clipped by devices at most, and nothing is promised.
    privacy: Privacy | None = None

    @property
    def fold_clip_norm(self) -> float:
        """No update may weigh more in the sums, whatever its device did; 0 is no bound."""
        return 0.0 if self.privacy is None else self.privacy.clip_norm

    def tier_of(self, tier: str) -> str:
        """The tier that a device of `tier` has in this task: "" where it is not listed."""
        return tier if any(tier == known.name for known in self.tiers) else ""

    @property
    def tier_names(self) -> tuple[str, ...]:
        """Every tier that a device can have here, "" first."""
        return ("", *(tier.name for tier in self.tiers))

    def tier_below(self, tier: str, steps: int) -> str:
        """The tier that stands `steps` after this one, or the last."""
        names = self.tier_names
        return names[min(names.index(tier) + steps, len(names) - 1)]

    def plan(self, round_index: int, tier: str = "") -> RoundPlan:
        """The tier's method's, and in a private task the privacy's clipping."""
        methods = {known.name: known.method for known in self.tiers}
        plan = methods.get(tier, self.method).plan(self.layout, round_index)
        if self.privacy is None:
            return plan
        return replace(plan, upload=replace(plan.upload, clip_norm=self.privacy.clip_norm))

    def widest_tier(self, round_index: int) -> str:
        """The tier whose devices download most."""
        return max(
            self.tier_names,
            key=lambda tier: self.plan(round_index, tier).count_download(self.layout),
        )

    def count_widest_download(self, round_index: int) -> int:
        """How many values that is, whatever the weights."""
        return self.plan(round_index, self.widest_tier(round_index)).count_download(self.layout)

    def check(self) -> None:
        """Refuses (CONFIGURATION) what could not run, with the field that is wrong."""
        limits = self.limits
        check_headroom(limits.max_weight, limits.max_abs_value, limits.largest_cohort)
        self.training.check()
        self.ending.check()
        self.policy.check(limits.largest_cohort)
        self._check_methods()
        self._check_privacy()
        if not 1 <= self.fold_shards <= 64:
            raise Refusal(Reason.CONFIGURATION, "fold_shards must lie between 1 and 64")
        if len(self.base_model.sha256) != 32:
            raise Refusal(Reason.CONFIGURATION, "base_model.sha256 must be 32 bytes")
        try:
            is_object = isinstance(json.loads(self.peft_config_json), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise Refusal(Reason.CONFIGURATION, "peft_config_json must be a JSON object")

    def _check_methods(self) -> None:
        for method in (self.method, *(tier.method for tier in self.tiers)):
            method.check(self.layout, devices_draw_base=self.base.is_drawn)
        plans = [self.plan(0, tier) for tier in self.tier_names]
        if len({(plan.weighing, plan.averaging) for plan in plans}) > 1:
            raise Refusal(
                Reason.CONFIGURATION,
                "all tiers make one adapter: their methods must weigh and average alike",
                field="tiers",
            )
        if len(set(self.tier_names)) <= len(self.tiers):
            raise Refusal(Reason.CONFIGURATION, "tiers must have names that differ", field="tiers")
        for tier in self.tiers:
            check_tier_name(tier.name)

    def _check_privacy(self) -> None:
        if self.privacy is None:
            return
        self.privacy.check(
            self.policy,
            max_weight=self.limits.max_weight,
            largest_cohort=self.limits.largest_cohort,
        )
        methods = (self.method, *(tier.method for tier in self.tiers))
        if any(method.plan(self.layout, 0).upload.clip_norm for method in methods):
            raise Refusal(
                Reason.CONFIGURATION,
                "a private task clips by privacy.clip_norm; leave the method's own at 0",
                field="clip_norm",
            )
        if self.plan(0).averaging is not Averaging.UPDATES:
            raise Refusal(
                Reason.CONFIGURATION,
                "a private task averages updates: trained weights would tell which tiers came",
                field="method",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: UUID
    name: str
    state: TaskState
    config: TaskConfig
    # The serialized flasc.v1.TaskSpec, kept as made so that its hash never changes.
    spec: bytes
    spec_sha256: bytes
    created_at: datetime
    revision: int = 0

    def move_to(self, state: TaskState) -> Task:
        """Refuses (TASK_STATE) a move that the diagram above lacks."""
        if state not in TRANSITIONS[self.state]:
            raise Refusal(
                Reason.TASK_STATE,
                f"a task that is {self.state} can not become {state}",
                task=self.name,
            )
        return replace(self, state=state)


def check_tier_name(name: str) -> None:
    """Refuses CONFIGURATION."""
    if not NAME.fullmatch(name):
        raise Refusal(
            Reason.CONFIGURATION,
            "a tier name has 1 to 63 lower-case letters, digits and dashes",
            field="tier",
        )


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refusal(
            Reason.CONFIGURATION,
            "a task name has 1 to 63 lower-case letters, digits and dashes",
        )
