"""What one round does with the adapter, as values that servers and devices can follow.

A method is a function from a round's number to such a plan. Whoever follows plans needs to know
no method by name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from types import MappingProxyType
from typing import ClassVar, Final, TypeAlias

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout, Role
from flasc_core.methods.settings import check_settings, write_settings
from flasc_core.pb.v1 import device_service_pb2

__all__ = [
    "ALL_ROLES",
    "HEAD",
    "LORA",
    "Averaging",
    "Group",
    "KeepLargest",
    "KeepRanks",
    "Method",
    "RankOrder",
    "RankPenalty",
    "RoundPlan",
    "TrainRule",
    "UploadRule",
    "WeightKind",
    "WeightRule",
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
class RankPenalty:
    """What the last ranks of a LoRA module add to a device's loss, so that it can do without them.

    Over modules, `factor` x |columns of B from `from_rank` on| x |rows of A from there on|, by
    Frobenius norms. ValueError for a factor that is not positive and finite.
    """

    from_rank: int
    factor: float

    def __post_init__(self) -> None:
        if self.from_rank < 0 or not 0 < self.factor < math.inf:
            raise ValueError(f"{self} penalises nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRule:
    """How training differs from plain training of all of the adapter, as it does by default."""

    # What stays as it was downloaded.
    frozen_roles: frozenset[Role] = frozenset()
    # Nothing trains but the coordinates that the download holds.
    downloaded_only: bool = False
    # Set: a device whose penalised ranks have shrunk asks for the next tier.
    rank_penalty: RankPenalty | None = None

    def to_message(self) -> device_service_pb2.TrainRule:
        penalty = self.rank_penalty
        return device_service_pb2.TrainRule(
            frozen_roles=sorted(role.to_message() for role in self.frozen_roles),
            downloaded_only=self.downloaded_only,
            rank_penalty=None
            if penalty is None
            else device_service_pb2.RankPenalty(from_rank=penalty.from_rank, factor=penalty.factor),
        )

    @classmethod
    def from_message(cls, message: device_service_pb2.TrainRule) -> TrainRule:
        """Refuses FIELD_REQUIRED, UNKNOWN_ENUM and FIELD_RANGE."""
        penalty = message.rank_penalty
        try:
            return cls(
                frozen_roles=frozenset(Role.from_message(role) for role in message.frozen_roles),
                downloaded_only=message.downloaded_only,
                rank_penalty=RankPenalty(from_rank=penalty.from_rank, factor=penalty.factor)
                if message.HasField("rank_penalty")
                else None,
            )
        except ValueError as error:
            raise Refusal(Reason.FIELD_RANGE, str(error), field="train_rule") from error


@unique
class WeightKind(StrEnum):
    """What a device's update weighs by."""

    EXAMPLES = "examples"
    # |B A| over all LoRA modules after training.
    PRODUCT_NORM = "product_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRule:
    """An update weighs its quantity in `unit`s, rounded, at least 1 and at most the task's limit.

    ValueError for a unit that is not positive and finite.
    """

    kind: WeightKind = WeightKind.EXAMPLES
    unit: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.unit < math.inf:
            raise ValueError(f"a weight has no unit of {self.unit}")

    def to_message(self) -> device_service_pb2.WeightRule:
        return device_service_pb2.WeightRule(kind=_WEIGHT_NUMBERS[self.kind], unit=self.unit)

    @classmethod
    def from_message(cls, message: device_service_pb2.WeightRule) -> WeightRule:
        """Refuses FIELD_REQUIRED, UNKNOWN_ENUM and FIELD_RANGE."""
        if message.kind == device_service_pb2.WEIGHT_KIND_UNSPECIFIED:
            raise Refusal(Reason.FIELD_REQUIRED, "set the kind of weight", field="weight_rule")
        kind = {number: kind for kind, number in _WEIGHT_NUMBERS.items()}.get(message.kind)
        if kind is None:
            raise Refusal(
                Reason.UNKNOWN_ENUM,
                f"kind of weight {message.kind} is unknown",
                field="weight_rule",
            )
        try:
            return cls(kind=kind, unit=message.unit)
        except ValueError as error:
            raise Refusal(Reason.FIELD_RANGE, str(error), field="weight_rule") from error


_WEIGHT_NUMBERS: Final[Mapping[WeightKind, device_service_pb2.WeightKind]] = MappingProxyType(
    {
        WeightKind.EXAMPLES: device_service_pb2.WEIGHT_KIND_EXAMPLES,
        WeightKind.PRODUCT_NORM: device_service_pb2.WEIGHT_KIND_PRODUCT_NORM,
    }
)


@unique
class Averaging(StrEnum):
    """What the server optimizer is given the mean of."""

    # A coordinate that a device did not send stays as it is, as far as that device goes.
    UPDATES = "updates"
    # Of trained weights: a coordinate that a device was not sent is zero, as far as that one goes.
    WEIGHTS = "weights"


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
    weighing: WeightRule = WeightRule()
    averaging: Averaging = Averaging.UPDATES

    def __post_init__(self) -> None:
        if not self.download or _overlap(self.download):
            raise ValueError("a download has groups, and no role is in two of them")

    def check(self, layout: AdapterLayout) -> None:
        """Refuse (CONFIGURATION, K_BUDGET) groups that the layout has not enough for."""
        for group in (*self.download, *self.upload.groups):
            group.count_in(layout)

    def count_download(self, layout: AdapterLayout) -> int:
        return sum(group.count_in(layout) for group in self.download)


class Method(ABC):
    """A federated fine-tuning method, free of I/O: a frozen dataclass with its settings as fields.

    Task configurations know it by `name`. Settings are bool, int, float or str, or None; what else
    they have to be is said by a `Setting` in their annotations.

    `round_index` counts the rounds whose result the adapter holds: the version that devices start
    from. A round that is repeated has the same index, and the same plan.
    """

    __slots__ = ()

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Refuse (CONFIGURATION) settings out of range."""
        check_settings(self)

    @abstractmethod
    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan: ...

    @abstractmethod
    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        """Refuse (CONFIGURATION) settings that can not work on this layout.

        `devices_draw_base` says whether devices have the initial adapter without downloading it.
        """
        ...

    def to_json(self) -> dict[str, JsonValue]:
        return write_settings(self.name, self)


def _overlap(groups: tuple[Group, ...]) -> bool:
    roles = [role for group in groups for role in group.roles]
    return len(set(roles)) != len(roles)
