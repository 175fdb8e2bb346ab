"""Methods as values: which part of the adapter goes down to devices, and which part comes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import (
    JsonValue,
    read_integer,
    read_number,
    read_text,
    refuse_unknown_keys,
)
from flasc_core.layout import AdapterLayout, Role
from flasc_core.pb.v1 import device_service_pb2
from flasc_core.sparse import SparseVector, count_kept, top_k

__all__ = [
    "Flasc",
    "KeepLargest",
    "Method",
    "UploadRule",
    "apply_upload_rule",
    "mask_composition",
    "method_from_json",
]

_ALL_ROLES: Final = frozenset(Role)
_HEAD: Final = frozenset({Role.HEAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLargest:
    """Keep the `count` largest magnitudes among the coordinates of `roles`, ranked together."""

    roles: frozenset[Role]
    count: int

    def __post_init__(self) -> None:
        if not self.roles or self.count < 1:
            raise ValueError("a group has at least one role and keeps at least one coordinate")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRule:
    """What of a local update is sent: the union of groups with disjoint roles, then clipped.

    `clip_norm` is the largest L2 norm of what is sent, 0 for no clipping.
    """

    groups: tuple[KeepLargest, ...]
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        roles = [role for group in self.groups for role in group.roles]
        if not self.groups or len(set(roles)) != len(roles):
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


class Method(Protocol):
    """A federated fine-tuning method, free of I/O; rounds are numbered from 0."""

    def select_download(
        self, layout: AdapterLayout, weights: NDArray[np.float32], round_number: int
    ) -> SparseVector:
        """Return what goes down of `weights`, which are differences where the task has a base.

        A zero weight inside the mask is an explicit zero.
        """
        ...

    def download_groups(self, layout: AdapterLayout, round_number: int) -> tuple[KeepLargest, ...]:
        """Return what `select_download` keeps, no more and no less.

        Rounds with the same groups select the same of the same weights.
        """
        ...

    def upload_rule(self, layout: AdapterLayout, round_number: int) -> UploadRule: ...

    def check(self, layout: AdapterLayout) -> None:
        """Refuse (CONFIGURATION) settings that keep nothing of this layout."""
        ...

    def to_json(self) -> dict[str, JsonValue]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Flasc:
    """Federated LoRA with sparse communication (arXiv 2406.05233); dense LoRA at densities of 1.

    Down go the largest weights, up come the largest changes, each ranked over the whole vector.
    With a `head_density` the head is ranked alone at that density, both ways and in every round;
    without one it is ranked with the rest. Other densities fall by `decay` every `decay_every`
    rounds and never keep less than one coordinate. Refuses CONFIGURATION for settings out of range.
    """

    download_density: float
    upload_density: float
    head_density: float | None = None
    decay: float = 1.0
    decay_every: int = 1
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        _check_share("download_density", self.download_density)
        _check_share("upload_density", self.upload_density)
        if self.head_density is not None:
            _check_share("head_density", self.head_density)
        _check_share("decay", self.decay)
        if self.decay_every < 1:
            raise Refusal(Reason.CONFIGURATION, "decay_every must be at least 1")
        if not 0 <= self.clip_norm < math.inf:
            raise Refusal(Reason.CONFIGURATION, "clip_norm must be finite and at least 0")

    def select_download(
        self, layout: AdapterLayout, weights: NDArray[np.float32], round_number: int
    ) -> SparseVector:
        indices = _select(layout, weights, self.download_groups(layout, round_number))
        return SparseVector(dim=layout.dim, indices=indices, values=weights[indices])

    def download_groups(self, layout: AdapterLayout, round_number: int) -> tuple[KeepLargest, ...]:
        return self._groups(layout, self.download_density, round_number)

    def upload_rule(self, layout: AdapterLayout, round_number: int) -> UploadRule:
        groups = self._groups(layout, self.upload_density, round_number)
        return UploadRule(groups=groups, clip_norm=self.clip_norm)

    def check(self, layout: AdapterLayout) -> None:
        for density in (self.download_density, self.upload_density):
            for roles, share in self._shares(layout, density):
                size = layout.size_of(roles)
                if count_kept(size, share) < 1:
                    raise Refusal(
                        Reason.CONFIGURATION,
                        f"a density of {share} keeps none of {size} coordinates; raise it",
                        density=share,
                        size=size,
                    )

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "name": "flasc",
            "download_density": self.download_density,
            "upload_density": self.upload_density,
            "head_density": self.head_density,
            "decay": self.decay,
            "decay_every": self.decay_every,
            "clip_norm": self.clip_norm,
        }

    def _shares(self, layout: AdapterLayout, density: float) -> list[tuple[frozenset[Role], float]]:
        if self.head_density is None:
            shares = [(_ALL_ROLES, density)]
        else:
            shares = [(_ALL_ROLES - _HEAD, density), (_HEAD, self.head_density)]
        return [(roles, share) for roles, share in shares if layout.size_of(roles)]

    def _groups(
        self, layout: AdapterLayout, density: float, round_number: int
    ) -> tuple[KeepLargest, ...]:
        decayed = density * self.decay ** (round_number // self.decay_every)
        return tuple(
            KeepLargest(roles=roles, count=max(1, count_kept(layout.size_of(roles), share)))
            for roles, share in self._shares(layout, decayed)
        )


def method_from_json(data: Mapping[str, JsonValue]) -> Method:
    """Read what `to_json` wrote; missing settings take their defaults. Refuses CONFIGURATION."""
    name = read_text(data, "name")
    reader = _READERS.get(name)
    if reader is None:
        raise Refusal(
            Reason.CONFIGURATION,
            f"method {name!r} is unknown; known are {', '.join(sorted(_READERS))}",
            field="name",
        )
    return reader(data)


def apply_upload_rule(
    layout: AdapterLayout, update: NDArray[np.float32], rule: UploadRule
) -> SparseVector:
    """Return what of `update` is sent: the largest coordinates of every group, then clipped.

    Exactly `rule.max_count` coordinates, of which ties may leave some zero. Refuses NON_FINITE for
    any coordinate of the update, sent or not, and K_BUDGET for a group that keeps more than it has.
    """
    if not np.isfinite(update).all():
        raise Refusal(Reason.NON_FINITE, "the update holds a value that is not a finite number")
    indices = _select(layout, update, rule.groups)
    values = _clip(update[indices], rule.clip_norm)
    return SparseVector(dim=layout.dim, indices=indices, values=values)


def mask_composition(layout: AdapterLayout, indices: NDArray[np.int64]) -> dict[Role, int]:
    """Count ascending coordinates by role; every role is named."""
    ends = np.searchsorted(indices, layout.offsets)
    counts = dict.fromkeys(Role, 0)
    for tensor, count in zip(layout.tensors, np.diff(ends).tolist(), strict=True):
        counts[tensor.role] += count
    return counts


def _select(
    layout: AdapterLayout, vector: NDArray[np.float32], groups: tuple[KeepLargest, ...]
) -> NDArray[np.int64]:
    if vector.shape != (layout.dim,):
        raise ValueError(f"the vector has shape {vector.shape}, not ({layout.dim},)")
    chosen = [_select_group(layout, vector, group) for group in groups]
    return chosen[0] if len(chosen) == 1 else np.sort(np.concatenate(chosen))


def _select_group(
    layout: AdapterLayout, vector: NDArray[np.float32], group: KeepLargest
) -> NDArray[np.int64]:
    size = layout.size_of(group.roles)
    if group.count > size:
        raise Refusal(
            Reason.K_BUDGET,
            f"the rule keeps {group.count} of {size} coordinates",
            count=group.count,
            size=size,
        )
    if size == layout.dim:
        return top_k(vector, group.count)
    candidates = layout.indices_of(group.roles)
    return candidates[top_k(vector[candidates], group.count)]


def _clip(values: NDArray[np.float32], clip_norm: float) -> NDArray[np.float32]:
    if clip_norm == 0:
        return values
    exact = values.astype(np.float64)
    excess = math.sqrt(float(np.square(exact).sum())) / clip_norm
    return values if excess <= 1 else (exact / excess).astype(np.float32)


def _read_flasc(data: Mapping[str, JsonValue]) -> Flasc:
    refuse_unknown_keys(
        data,
        (
            "name",
            "download_density",
            "upload_density",
            "head_density",
            "decay",
            "decay_every",
            "clip_norm",
        ),
    )
    head = None if data.get("head_density") is None else read_number(data, "head_density")
    return Flasc(
        download_density=read_number(data, "download_density"),
        upload_density=read_number(data, "upload_density"),
        head_density=head,
        decay=read_number(data, "decay", 1.0),
        decay_every=read_integer(data, "decay_every", 1),
        clip_norm=read_number(data, "clip_norm", 0.0),
    )


_READERS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], Method]]] = MappingProxyType(
    {"flasc": _read_flasc}
)


def _check_share(name: str, value: float) -> None:
    # Written so that NaN is refused too.
    if not 0 < value <= 1:
        raise Refusal(Reason.CONFIGURATION, f"{name} must be in (0, 1], not {value}", field=name)
