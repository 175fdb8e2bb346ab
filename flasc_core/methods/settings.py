"""Settings of methods, told once: what they may be, for checks, for JSON and for schemas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Final, TypeAlias, TypeVar, cast, get_args, get_type_hints

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import (
    JsonValue,
    read_flag,
    read_integer,
    read_number,
    read_text,
    refuse_unknown_keys,
)

__all__ = [
    "Density",
    "Factor",
    "HeadDensity",
    "Positive",
    "Setting",
    "SettingField",
    "check_settings",
    "fields_of",
    "read_settings",
    "write_settings",
]

M = TypeVar("M")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a setting may be beside its type, as `Annotated` metadata; None bounds nothing.

    `above` is exclusive. `choices` are for text. `description` and `example` are for people.
    """

    description: str | None = None
    example: JsonValue = None
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str | None:
        """Return what a value should be that it is not; None for one that will do."""
        if isinstance(value, str):
            wanted = f"one of {', '.join(self.choices)}"
            return wanted if self.choices and value not in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # Written so that NaN is refused too.
        bounds = {
            "finite": -math.inf < value < math.inf,
            f"above {self.above}": self.above is None or value > self.above,
            f"at least {self.at_least}": self.at_least is None or value >= self.at_least,
            f"at most {self.at_most}": self.at_most is None or value <= self.at_most,
        }
        return next((bound for bound, is_kept in bounds.items() if not is_kept), None)


Positive: TypeAlias = Annotated[int, Setting(at_least=1, at_most=2**31 - 1)]
# What something shrinks by, 1 for not at all.
Factor: TypeAlias = Annotated[float, Setting(above=0, at_most=1)]
Density: TypeAlias = Annotated[float, Setting(above=0, at_most=1, example=0.25)]
HeadDensity: TypeAlias = Annotated[
    float | None,
    Setting(
        above=0,
        at_most=1,
        description="The head ranked alone at this density; null: with the rest.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingField:
    """A method's setting: a bool, int, float or str, None too where it is `optional`.

    `default` is `dataclasses.MISSING` where it has to be set.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    setting: Setting


def fields_of(method: type) -> tuple[SettingField, ...]:
    """Return the settings of a method, a dataclass, in order."""
    bare = get_type_hints(method)
    told = get_type_hints(method, include_extras=True)
    fields = []
    for field in dataclasses.fields(method):
        kinds = get_args(bare[field.name]) or (bare[field.name],)
        metadata = getattr(told[field.name], "__metadata__", ())
        fields.append(
            SettingField(
                name=field.name,
                kind=next(kind for kind in kinds if kind is not NoneType),
                optional=NoneType in kinds,
                default=field.default,
                setting=next((one for one in metadata if isinstance(one, Setting)), Setting()),
            )
        )
    return tuple(fields)


def check_settings(method: object) -> None:
    """Refuse (CONFIGURATION) a setting that is not what its annotation allows."""
    for field in fields_of(type(method)):
        value = getattr(method, field.name)
        wanted = field.setting.problem(value)
        if wanted is not None:
            raise Refusal(
                Reason.CONFIGURATION,
                f"{field.name} must be {wanted}, not {value!r}",
                field=field.name,
            )


def write_settings(name: str, method: object) -> dict[str, JsonValue]:
    """Return the fields of a dataclass, and the name it is known by."""
    names = (field.name for field in dataclasses.fields(cast("Any", method)))
    return {"name": name} | {key: getattr(method, key) for key in names}


def read_settings(data: Mapping[str, JsonValue], kind: type[M]) -> M:
    """Read what `write_settings` wrote; settings that are left out take their defaults.

    Refuses CONFIGURATION.
    """
    fields = fields_of(kind)
    refuse_unknown_keys(data, ("name", *(field.name for field in fields)))
    values: dict[str, Any] = {}
    for field in fields:
        if field.name in data or field.default is dataclasses.MISSING:
            is_none = field.optional and data.get(field.name) is None
            values[field.name] = None if is_none else _READERS[field.kind](data, field.name)
    return kind(**values)


_READERS: Final[Mapping[type, Callable[[Mapping[str, JsonValue], str], object]]] = MappingProxyType(
    {bool: read_flag, float: read_number, int: read_integer, str: read_text}
)
