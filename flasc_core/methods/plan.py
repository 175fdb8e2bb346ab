"""What one round does with the adapter, as values that servers and devices can follow.

A method is a function from a round's number to such a plan. Whoever follows plans needs to know
no method by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, Protocol, TypeAlias

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout, Role
from flasc_core.pb.v1 import device_service_pb2

__all__ = [
    "ALL_ROLES",
    "HEAD",
    "LORA",
    "Group",
    "KeepLargest",
    "KeepRanks",
    "Method",
    "RankOrder",
    "RoundPlan",
    "TrainRule",
    "UploadRule",
]

ALL_ROLES: Final = frozenset(Role)
HEAD: Final = frozenset({Role.HEAD})
LORA: Final = frozenset({Role.LORA_A, Role.LORA_B})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLargest:
    """Keep the `count` largest magnitudes among the coordinates of `roles`, ranked together."""

    roles: frozenset[Role]
    count: int

    def __post_init__(self) -> None:
        if not self.roles or self.count < 1:
            raise ValueError("a group has at least one role and keeps at least one coordinate")

    def count_in(self, layout: AdapterLayout) -> int:
        """Return how many coordinates are kept; refuses K_BUDGET for more than there are."""
        size = layout.size_of(self.roles)
        if self.count > size:
            raise Refusal(
                Reason.K_BUDGET,
                f"the rule keeps {self.count} of {size} coordinates",
                count=self.count,
                size=size,
            )
        return self.count


@unique
class RankOrder(StrEnum):
    """Which of a LoRA module's ranks come first."""

    INDEX = "index"
    # By L2 norm, largest first, every tensor by its own: A and B may keep different ranks.
    NORM = "norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRanks:
    """Keep `rank` rows of every LORA_A tensor and as many columns of every LORA_B tensor."""

    rank: int
    order: RankOrder = RankOrder.INDEX

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError("a group of ranks keeps at least one")

    @property
    def roles(self) -> frozenset[Role]:
        return LORA

    def count_in(self, layout: AdapterLayout) -> int:
        """Return how many coordinates are kept; refuses CONFIGURATION for a rank too high."""
        kept = 0
        for tensor in layout.tensors:
            if tensor.role in LORA:
                if len(tensor.shape) < 2:
                    raise Refusal(Reason.CONFIGURATION, f"{tensor.name!r} has no axis of ranks")
                ranks = tensor.shape[rank_axis(tensor.role)]
                if self.rank > ranks:
                    raise Refusal(
                        Reason.CONFIGURATION,
                        f"rank {self.rank} is above the {ranks} of {tensor.name!r}",
                        rank=self.rank,
                    )
                kept += tensor.size // ranks * self.rank
        return kept


Group: TypeAlias = KeepLargest | KeepRanks


def rank_axis(role: Role) -> int:
    """Return the axis of a LoRA tensor that counts ranks: A is rank x in, B is out x rank."""
    return 0 if role is Role.LORA_A else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRule:
    """What of the adapter stays as it was downloaded while a device trains; by default nothing."""

    frozen_roles: frozenset[Role] = frozenset()
    # Nothing trains but the coordinates that the download holds.
    downloaded_only: bool = False

    def to_message(self) -> device_service_pb2.TrainRule:
        return device_service_pb2.TrainRule(
            frozen_roles=sorted(role.to_message() for role in self.frozen_roles),
            downloaded_only=self.downloaded_only,
        )

    @classmethod
    def from_message(cls, message: device_service_pb2.TrainRule) -> TrainRule:
        """Refuses FIELD_REQUIRED and UNKNOWN_ENUM."""
        return cls(
            frozen_roles=frozenset(Role.from_message(role) for role in message.frozen_roles),
            downloaded_only=message.downloaded_only,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRule:
    """What of a local update is sent: the union of groups with disjoint roles, then clipped.

    Coordinates that did not change need not be sent. `clip_norm` is the largest L2 norm of what
    is sent, 0 for no clipping.
    """

    groups: tuple[KeepLargest, ...]
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if not self.groups or _overlap(self.groups):
            raise ValueError("an upload rule has groups, and no role is in two of them")
        if not 0 <= self.clip_norm < math.inf:
            raise ValueError(f"clip_norm must be finite and at least 0, not {self.clip_norm}")

    @property
    def max_count(self) -> int:
        return sum(group.count for group in self.groups)

    def to_message(self) -> device_service_pb2.UploadRule:
        return device_service_pb2.UploadRule(
            groups=[
                device_service_pb2.KeepLargest(
                    roles=sorted(role.to_message() for role in group.roles), count=group.count
                )
                for group in self.groups
            ],
            clip_norm=self.clip_norm,
        )

    @classmethod
    def from_message(cls, message: device_service_pb2.UploadRule) -> UploadRule:
        """Refuses FIELD_REQUIRED, UNKNOWN_ENUM and FIELD_RANGE."""
        if not message.groups or not all(group.roles for group in message.groups):
            raise Refusal(Reason.FIELD_REQUIRED, "list the groups and their roles", field="groups")
        try:
            groups = tuple(
                KeepLargest(
                    roles=frozenset(Role.from_message(role) for role in group.roles),
                    count=group.count,
                )
                for group in message.groups
            )
            return cls(groups=groups, clip_norm=message.clip_norm)
        except ValueError as error:
            raise Refusal(Reason.FIELD_RANGE, str(error), field="upload_rule") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """Down goes the union of the `download` groups, whose roles are disjoint.

    They rank the weights of the version that devices start from, or where `ranked_by` is set, of
    that version: a mask that stays.
    """

    download: tuple[Group, ...]
    upload: UploadRule
    training: TrainRule = TrainRule()
    ranked_by: int | None = None

    def __post_init__(self) -> None:
        if not self.download or _overlap(self.download):
            raise ValueError("a download has groups, and no role is in two of them")

    def check(self, layout: AdapterLayout) -> None:
        """Refuse (CONFIGURATION, K_BUDGET) groups that the layout has not enough for."""
        for group in (*self.download, *self.upload.groups):
            group.count_in(layout)

    def count_download(self, layout: AdapterLayout) -> int:
        return sum(group.count_in(layout) for group in self.download)


class Method(Protocol):
    """A federated fine-tuning method, free of I/O.

    `round_index` counts the rounds whose result the adapter holds: the version that devices start
    from. A round that is repeated has the same index, and the same plan.
    """

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan: ...

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        """Refuse (CONFIGURATION) settings that can not work on this layout.

        `devices_draw_base` says whether devices have the initial adapter without downloading it.
        """
        ...

    def to_json(self) -> dict[str, JsonValue]: ...


def _overlap(groups: tuple[Group, ...]) -> bool:
    roles = [role for group in groups for role in group.roles]
    return len(set(roles)) != len(roles)
