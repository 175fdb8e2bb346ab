"""Frozen dataclasses read from plain tables, such as TOML's, with every key and type checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from flasc_core.json_value import JsonValue

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["read_fields"]

_T = TypeVar("_T", bound="DataclassInstance")


def read_fields(kind: type[_T], table: Mapping[str, JsonValue], where: str) -> _T:
    """Build a `kind` whose fields are bool, int, float, str or a tuple of one of these, or None.

    ValueError names the key that is unknown, missing or ill-typed, as `where.key`.
    """
    hints = get_type_hints(kind)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        known = ", ".join(sorted(hints))
        raise ValueError(f"{where} has no setting {unknown[0]!r}; it has {known}")
    for field in fields(kind):
        if field.default is MISSING and field.name not in table:
            raise ValueError(f"{where}.{field.name} is missing")
    return kind(
        **{name: _read(hints[name], value, f"{where}.{name}") for name, value in table.items()}
    )


def _read(hint: object, value: JsonValue, where: str) -> Any:
    wanted, reads = _READERS[hint]
    if not reads(value):
        raise ValueError(f"{where} must be {wanted}, not {value!r}")
    if isinstance(value, list):
        return tuple(map(float, value)) if hint == tuple[float, ...] else tuple(value)
    return float(value) if hint is float and isinstance(value, int) else value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(reads: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(reads, value))


def _or_none(reads: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or reads(value)


_PLAIN: Final[Mapping[Any, tuple[str, Callable[[object], bool]]]] = MappingProxyType(
    {
        str: ("text", _is_text),
        bool: ("true or false", _is_truth),
        int: ("a whole number", _is_whole),
        float: ("a number", _is_number),
        tuple[str, ...]: ("a list of texts", _all(_is_text)),
        tuple[int, ...]: ("a list of whole numbers", _all(_is_whole)),
        tuple[float, ...]: ("a list of numbers", _all(_is_number)),
    }
)
_READERS: Final[Mapping[Any, tuple[str, Callable[[object], bool]]]] = MappingProxyType(
    {
        **_PLAIN,
        **{hint | None: (wanted, _or_none(reads)) for hint, (wanted, reads) in _PLAIN.items()},
    }
)
