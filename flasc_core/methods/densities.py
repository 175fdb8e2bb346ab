"""Settings that several methods share: shares of roles, their decay, and their JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import (
    JsonValue,
    read_flag,
    read_integer,
    read_number,
    read_text,
    refuse_unknown_keys,
)
from flasc_core.layout import AdapterLayout, Role
from flasc_core.methods.plan import HEAD, KeepLargest
from flasc_core.sparse import count_kept

__all__ = [
    "Share",
    "check_clip_norm",
    "check_densities",
    "check_density",
    "keep_shares",
    "read_settings",
    "shares_of",
    "write_settings",
]

M = TypeVar("M")
# Roles that are ranked together, and which part of them is kept.
Share = tuple[frozenset[Role], float]


def shares_of(
    roles: frozenset[Role], density: float, head_density: float | None = None
) -> list[Share]:
    """Return `roles` as one share, or the head as another where it has a density of its own."""
    if head_density is None or Role.HEAD not in roles:
        return [(roles, density)]
    return [share for share in ((roles - HEAD, density), (HEAD, head_density)) if share[0]]


def keep_shares(layout: AdapterLayout, shares: Sequence[Share]) -> tuple[KeepLargest, ...]:
    """Return the groups of the shares that this layout has; none keeps less than one coordinate."""
    return tuple(
        KeepLargest(roles=roles, count=max(1, count_kept(layout.size_of(roles), density)))
        for roles, density in shares
        if layout.size_of(roles)
    )


def check_densities(layout: AdapterLayout, shares: Sequence[Share]) -> None:
    """Refuse (CONFIGURATION) a share that keeps nothing, and shares that all are of nothing."""
    sizes = [(layout.size_of(roles), density) for roles, density in shares]
    if not any(size for size, _ in sizes):
        raise Refusal(
            Reason.CONFIGURATION, "the method trains no tensor of this layout; choose another one"
        )
    for size, density in sizes:
        if size and count_kept(size, density) < 1:
            raise Refusal(
                Reason.CONFIGURATION,
                f"a density of {density} keeps none of {size} coordinates; raise it",
                density=density,
                size=size,
            )


def check_density(name: str, value: float | None) -> None:
    """Refuse (CONFIGURATION) a share outside (0, 1]; None is a share that is not set."""
    # Written so that NaN is refused too.
    if value is not None and not 0 < value <= 1:
        raise Refusal(Reason.CONFIGURATION, f"{name} must be in (0, 1], not {value}", field=name)


def check_clip_norm(value: float) -> None:
    if not 0 <= value < math.inf:
        raise Refusal(Reason.CONFIGURATION, "clip_norm must be finite and at least 0")


def write_settings(name: str, method: object) -> dict[str, JsonValue]:
    """Return the fields of a dataclass, and the name it is known by."""
    names = (setting.name for setting in dataclasses.fields(cast("Any", method)))
    return {"name": name} | {key: getattr(method, key) for key in names}


def read_settings(data: Mapping[str, JsonValue], kind: type[M]) -> M:
    """Read what `write_settings` wrote; settings that are left out take their defaults.

    Refuses CONFIGURATION.
    """
    settings = dataclasses.fields(cast("Any", kind))
    refuse_unknown_keys(data, ("name", *(setting.name for setting in settings)))
    values: dict[str, Any] = {}
    for setting in settings:
        if setting.name in data or setting.default is dataclasses.MISSING:
            values[setting.name] = _READERS[str(setting.type)](data, setting.name)
    return kind(**values)


def _read_optional_number(data: Mapping[str, JsonValue], key: str) -> float | None:
    return None if data.get(key) is None else read_number(data, key)


def _read_optional_integer(data: Mapping[str, JsonValue], key: str) -> int | None:
    return None if data.get(key) is None else read_integer(data, key)


# By annotation, as `from __future__ import annotations` keeps them.
_READERS: Final[Mapping[str, Callable[[Mapping[str, JsonValue], str], object]]] = MappingProxyType(
    {
        "bool": read_flag,
        "float": read_number,
        "float | None": _read_optional_number,
        "int": read_integer,
        "int | None": _read_optional_integer,
        "str": read_text,
    }
)
