"""The shape of an adapter: the order of its tensors in the flat vector that all parts exchange."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from itertools import accumulate
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.pb.v1 import layout_pb2

__all__ = ["MAX_DIM", "AdapterLayout", "Role", "TensorSpec"]

# Coordinates fit a signed 32-bit integer in every language that reads them.
MAX_DIM: Final = 2**31 - 1
_MAX_AXES: Final = 8


@unique
class Role(StrEnum):
    """What a tensor is to the method; densities and frozen parts are set per role."""

    LORA_A = "LORA_A"
    LORA_B = "LORA_B"
    HEAD = "HEAD"

    def to_message(self) -> layout_pb2.TensorRole:
        return _ROLE_NUMBERS[self]

    @classmethod
    def from_message(cls, number: int) -> Role:
        """Refuses FIELD_REQUIRED (unspecified) and UNKNOWN_ENUM."""
        if number == layout_pb2.TENSOR_ROLE_UNSPECIFIED:
            raise Refusal(Reason.FIELD_REQUIRED, "set the tensor role", field="role")
        role = _NUMBER_ROLES.get(number)
        if role is None:
            raise Refusal(Reason.UNKNOWN_ENUM, f"tensor role {number} is unknown", field="role")
        return role


_ROLE_NUMBERS: Final = MappingProxyType(
    {
        Role.LORA_A: layout_pb2.TENSOR_ROLE_LORA_A,
        Role.LORA_B: layout_pb2.TENSOR_ROLE_LORA_B,
        Role.HEAD: layout_pb2.TENSOR_ROLE_HEAD,
    }
)
_NUMBER_ROLES: Final[Mapping[int, Role]] = MappingProxyType(
    {number: role for role, number in _ROLE_NUMBERS.items()}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One trainable tensor, row-major; ValueError for an empty name or an axis below one."""

    name: str
    shape: tuple[int, ...]
    role: Role

    def __post_init__(self) -> None:
        if not self.name or any(character < " " for character in self.name):
            raise ValueError(f"tensor name {self.name!r} must be printable and not empty")
        if len(self.shape) > _MAX_AXES:
            raise ValueError(f"tensor {self.name!r} has more than {_MAX_AXES} axes")
        if any(axis < 1 for axis in self.shape):
            raise ValueError(f"tensor {self.name!r} has an axis below one: {self.shape}")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLayout:
    """Tensors in the model's own named_parameters() order; ValueError if they make no vector.

    `fingerprint` is the SHA-256 of one UTF-8 line per tensor, "ROLE AXISxAXIS NAME\\n", so that any
    language computes it; `offsets` has one more entry than there are tensors and ends in `dim`.
    """

    tensors: tuple[TensorSpec, ...]
    dim: int = field(init=False, compare=False)
    offsets: tuple[int, ...] = field(init=False, compare=False, repr=False)
    fingerprint: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ValueError("a layout has at least one tensor")
        names = [tensor.name for tensor in self.tensors]
        repeated = {name for name in names if names.count(name) > 1} if _repeats(names) else set()
        if repeated:
            raise ValueError(f"tensor name {min(repeated)!r} is used twice")
        offsets = tuple(accumulate((tensor.size for tensor in self.tensors), initial=0))
        if offsets[-1] > MAX_DIM:
            raise ValueError(f"the layout has {offsets[-1]} coordinates, more than {MAX_DIM}")
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "dim", offsets[-1])
        object.__setattr__(self, "fingerprint", _fingerprint(self.tensors))

    def indices_of(self, roles: Iterable[Role]) -> NDArray[np.int64]:
        """Return the coordinates of `roles`, ascending."""
        wanted = frozenset(roles)
        ranges = [
            np.arange(start, start + tensor.size, dtype=np.int64)
            for start, tensor in zip(self.offsets, self.tensors, strict=False)
            if tensor.role in wanted
        ]
        return np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)

    def size_of(self, roles: Iterable[Role]) -> int:
        wanted = frozenset(roles)
        return sum(tensor.size for tensor in self.tensors if tensor.role in wanted)

    def join(self, tensors: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Return the flat float32 vector; ValueError names what is missing, extra or misshapen."""
        known = {tensor.name for tensor in self.tensors}
        if set(tensors) != known:
            missing, extra = sorted(known - set(tensors)), sorted(set(tensors) - known)
            raise ValueError(f"tensors differ from the layout: missing {missing}, extra {extra}")
        vector = np.empty(self.dim, dtype=np.float32)
        for start, tensor in zip(self.offsets, self.tensors, strict=False):
            values = np.asarray(tensors[tensor.name], dtype=np.float32)
            if values.shape != tensor.shape:
                raise ValueError(
                    f"tensor {tensor.name!r} has shape {values.shape}, not {tensor.shape}"
                )
            vector[start : start + tensor.size] = values.reshape(-1)
        return vector

    def split(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return shaped views of `vector` by name; writing to them writes to it."""
        if vector.shape != (self.dim,):
            raise ValueError(f"the vector has shape {vector.shape}, not ({self.dim},)")
        return {
            tensor.name: vector[start : start + tensor.size].reshape(tensor.shape)
            for start, tensor in zip(self.offsets, self.tensors, strict=False)
        }

    def to_message(self) -> layout_pb2.AdapterLayout:
        return layout_pb2.AdapterLayout(
            tensors=[
                layout_pb2.TensorSpec(
                    name=tensor.name, shape=tensor.shape, role=tensor.role.to_message()
                )
                for tensor in self.tensors
            ],
            fingerprint=self.fingerprint,
        )

    @classmethod
    def from_message(cls, message: layout_pb2.AdapterLayout) -> AdapterLayout:
        """Refuses FIELD_REQUIRED, UNKNOWN_ENUM, FIELD_RANGE, and LAYOUT_MISMATCH (fingerprint)."""
        layout = _checked_layout(
            (tensor.name, tuple(tensor.shape), Role.from_message(tensor.role))
            for tensor in message.tensors
        )
        if not message.fingerprint:
            raise Refusal(Reason.FIELD_REQUIRED, "set the fingerprint", field="fingerprint")
        if message.fingerprint != layout.fingerprint:
            raise Refusal(
                Reason.LAYOUT_MISMATCH,
                "the fingerprint is not that of the tensors listed",
                given=message.fingerprint.hex(),
                computed=layout.fingerprint.hex(),
            )
        return layout

    def to_json(self) -> list[dict[str, JsonValue]]:
        return [
            {"name": tensor.name, "shape": list(tensor.shape), "role": tensor.role.value}
            for tensor in self.tensors
        ]

    @classmethod
    def from_json(cls, data: JsonValue) -> AdapterLayout:
        """Refuses FIELD_REQUIRED, UNKNOWN_ENUM and FIELD_RANGE."""
        if isinstance(data, str) or not isinstance(data, Sequence):
            raise Refusal(Reason.FIELD_RANGE, "a layout is a list of tensors", field="layout")
        return _checked_layout(_read_tensor(item) for item in data)


_Entry = tuple[str, tuple[int, ...], Role]


def _checked_layout(entries: Iterable[_Entry]) -> AdapterLayout:
    tensors: list[TensorSpec] = []
    try:
        for name, shape, role in entries:
            if not name:
                raise Refusal(Reason.FIELD_REQUIRED, "set the tensor name", field="name")
            tensors.append(TensorSpec(name=name, shape=shape, role=role))
        if not tensors:
            raise Refusal(Reason.FIELD_REQUIRED, "list the tensors", field="tensors")
        return AdapterLayout(tensors=tuple(tensors))
    except ValueError as error:
        raise Refusal(Reason.FIELD_RANGE, str(error), field="tensors") from error


def _read_tensor(item: JsonValue) -> _Entry:
    if not isinstance(item, Mapping):
        raise Refusal(Reason.FIELD_RANGE, "a tensor is an object", field="tensors")
    name, shape, role = item.get("name"), item.get("shape"), item.get("role")
    if name is None or shape is None or role is None:
        raise Refusal(Reason.FIELD_REQUIRED, "a tensor has name, shape and role", field="tensors")
    if not isinstance(name, str) or not isinstance(shape, Sequence) or isinstance(shape, str):
        raise Refusal(Reason.FIELD_RANGE, "name is text, shape a list", field="tensors")
    axes = tuple(axis for axis in shape if isinstance(axis, int) and not isinstance(axis, bool))
    if len(axes) != len(shape):
        raise Refusal(Reason.FIELD_RANGE, "shape holds whole numbers", field="shape")
    if not isinstance(role, str) or role not in Role.__members__:
        raise Refusal(Reason.UNKNOWN_ENUM, f"tensor role {role!r} is unknown", field="role")
    return name, axes, Role(role)


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) != len(names)


def _fingerprint(tensors: Iterable[TensorSpec]) -> bytes:
    lines = (f"{t.role.value} {'x'.join(map(str, t.shape))} {t.name}\n" for t in tensors)
    return hashlib.sha256("".join(lines).encode()).digest()
