"""What downloads are relative to: zero, or an initial adapter that every device draws for itself.

The initial adapter of a seed: every coordinate of every LORA_A tensor is uniform in +-bound, where
bound is 1 / sqrt(values per row), as PEFT initialises it; every other coordinate is zero. Number i
(from 0, row-major) of the tensor called NAME is

    key   = first 8 bytes, little-endian, of SHA-256("flasc initial adapter 1\\n" SEED "\\n" NAME)
    word  = splitmix64(key + (i + 1) * 0x9E3779B97F4A7C15), all modulo 2**64
    value = float32(2 * (word >> 40) + 1 - 2**24) * float32(2**-24) * float32(bound)

with SEED in decimal, NAME in UTF-8, bound computed in float64, and one rounding: the last product.
SplitMix64 is Steele, Lea and Flood's (OOPSLA 2014). Only integers and operations that IEEE 754
rounds exactly occur, so all platforms draw the same bits; docs/protocol.md has test vectors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue, read_integer, read_text, refuse_unknown_keys
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.pb.v1 import task_spec_pb2
from flasc_core.wire import Part

__all__ = ["Base", "InitialBase", "ZeroBase", "base_from_json", "base_from_message"]

_Vector = NDArray[np.float32]

_GOLDEN_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIXES: Final = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
# Numbers drawn at once: enough for numpy's speed, few enough to stay in the cache.
_CHUNK: Final = 65_536


class Base(Protocol):
    """A point that both ends know, so that only what lies apart from it is sent."""

    @property
    def is_drawn(self) -> bool:
        """Whether devices draw an adapter, and so have LoRA's A factors without a download."""
        ...

    def initialise(self, layout: AdapterLayout, weights: _Vector) -> _Vector:
        """Return a new task's `weights`, shape (dim,), with what devices draw in its place."""
        ...

    def differences(self, layout: AdapterLayout, weights: _Vector) -> _Vector:
        """Return what is ranked and sent of `weights`, shape (dim,)."""
        ...

    def start_from(self, layout: AdapterLayout, download: Iterable[Part]) -> _Vector:
        """Return the dense vector that training starts from: the base where nothing was sent.

        Parts are taken one after another, so that one dense vector is all that is ever held.
        """
        ...

    def check(self, layout: AdapterLayout, weights: _Vector) -> None:
        """Refuse (CONFIGURATION) an adapter that this base lies farther from than zero does."""
        ...

    def to_json(self) -> dict[str, JsonValue]: ...

    def to_message(self) -> task_spec_pb2.InitialAdapter | None:
        """Return what a TaskSpec says of it; None leaves the field unset."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroBase:
    """Weights are sent as they are, as the method's authors do."""

    @property
    def is_drawn(self) -> bool:
        return False

    def initialise(self, layout: AdapterLayout, weights: _Vector) -> _Vector:
        return weights

    def differences(self, layout: AdapterLayout, weights: _Vector) -> _Vector:
        return weights

    def start_from(self, layout: AdapterLayout, download: Iterable[Part]) -> _Vector:
        start = np.zeros(layout.dim, dtype=np.float32)
        for indices, values in download:
            start[indices] = values
        return start

    def check(self, layout: AdapterLayout, weights: _Vector) -> None:
        pass

    def to_json(self) -> dict[str, JsonValue]:
        return {"name": "zero"}

    def to_message(self) -> task_spec_pb2.InitialAdapter | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialBase:
    """Weights are sent as differences from the initial adapter of `seed`, 0 to 2**63 - 1."""

    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise Refusal(
                Reason.CONFIGURATION, "base.seed must lie between 0 and 2**63 - 1", field="seed"
            )

    @property
    def is_drawn(self) -> bool:
        return True

    def draw(self, layout: AdapterLayout) -> _Vector:
        """Return the initial adapter, float32 of shape (dim,)."""
        vector = np.zeros(layout.dim, dtype=np.float32)
        for start, tensor in zip(layout.offsets, layout.tensors, strict=False):
            if tensor.role is Role.LORA_A:
                _draw_tensor(vector[start : start + tensor.size], tensor, self.seed)
        return vector

    def initialise(self, layout: AdapterLayout, weights: _Vector) -> _Vector:
        factors = layout.indices_of([Role.LORA_A])
        initialised = weights.copy()
        initialised[factors] = self.draw(layout)[factors]
        return initialised

    def differences(self, layout: AdapterLayout, weights: _Vector) -> _Vector:
        return weights - self.draw(layout)

    def start_from(self, layout: AdapterLayout, download: Iterable[Part]) -> _Vector:
        start = self.draw(layout)
        for indices, values in download:
            start[indices] += values
        return start

    def check(self, layout: AdapterLayout, weights: _Vector) -> None:
        apart = self.differences(layout, weights).astype(np.float64)
        if float(apart @ apart) > float(np.square(weights, dtype=np.float64).sum()):
            raise Refusal(
                Reason.CONFIGURATION,
                "the adapter does not start near the initial adapter of its base's seed; draw its "
                "LoRA A factors with that seed, or choose the base zero",
                field="base",
            )

    def to_json(self) -> dict[str, JsonValue]:
        return {"name": "initial", "seed": self.seed}

    def to_message(self) -> task_spec_pb2.InitialAdapter | None:
        return task_spec_pb2.InitialAdapter(
            generator=task_spec_pb2.GENERATOR_SPLITMIX64_UNIFORM, seed=self.seed
        )


def base_from_json(data: Mapping[str, JsonValue]) -> Base:
    """Read what `to_json` wrote. Refuses CONFIGURATION."""
    name = read_text(data, "name")
    reader = _READERS.get(name)
    if reader is None:
        raise Refusal(
            Reason.CONFIGURATION,
            f"base {name!r} is unknown; known are {', '.join(sorted(_READERS))}",
            field="name",
        )
    return reader(data)


def base_from_message(message: task_spec_pb2.InitialAdapter | None) -> Base:
    """Read what `to_message` gave. Refuses FIELD_REQUIRED, UNKNOWN_ENUM and CONFIGURATION."""
    if message is None:
        return ZeroBase()
    if message.generator == task_spec_pb2.GENERATOR_UNSPECIFIED:
        raise Refusal(Reason.FIELD_REQUIRED, "set the initial adapter's generator")
    if message.generator != task_spec_pb2.GENERATOR_SPLITMIX64_UNIFORM:
        raise Refusal(
            Reason.UNKNOWN_ENUM,
            f"this version cannot draw an initial adapter by generator {message.generator}; "
            "install a newer one",
        )
    return InitialBase(seed=message.seed)


def _read_zero(data: Mapping[str, JsonValue]) -> Base:
    refuse_unknown_keys(data, ("name",))
    return ZeroBase()


def _read_initial(data: Mapping[str, JsonValue]) -> Base:
    refuse_unknown_keys(data, ("name", "seed"))
    return InitialBase(seed=read_integer(data, "seed"))


_READERS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], Base]]] = MappingProxyType(
    {"initial": _read_initial, "zero": _read_zero}
)


def _draw_tensor(target: _Vector, tensor: TensorSpec, seed: int) -> None:
    name = f"flasc initial adapter 1\n{seed}\n{tensor.name}".encode()
    key = np.uint64(int.from_bytes(hashlib.sha256(name).digest()[:8], "little"))
    bound = np.float32(1 / math.sqrt(math.prod(tensor.shape[1:])))
    for first in range(0, target.size, _CHUNK):
        here = target[first : first + _CHUNK]
        counters = np.arange(first + 1, first + 1 + here.size, dtype=np.uint64)
        words = _splitmix64(key + counters * _GOLDEN_GAMMA)
        odd = (words >> np.uint64(40)).astype(np.int64) * 2 + (1 - 2**24)
        here[:] = odd.astype(np.float32) * np.float32(2.0**-24) * bound


def _splitmix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in _MIXES:
        words = (words ^ (words >> shift)) * factor
    return words ^ (words >> np.uint64(31))
