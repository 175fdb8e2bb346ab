"""JSON values as types, and typed reading of configuration objects."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from flasc_core.errors import Reason, Refusal

__all__ = [
    "JsonValue",
    "read_flag",
    "read_integer",
    "read_number",
    "read_text",
    "refuse_unknown_keys",
]

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)


_MAX: Final = sys.float_info.max


def read_number(data: Mapping[str, JsonValue], key: str, default: float | None = None) -> float:
    """Return a finite number; refuses (CONFIGURATION) all else, and absence without a default."""
    value = data.get(key, default)
    # Comparing, unlike converting, also works for integers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX:
        raise Refusal(Reason.CONFIGURATION, f"{key} must be a finite number", field=key)
    return float(value)


def read_integer(data: Mapping[str, JsonValue], key: str, default: int | None = None) -> int:
    """Return a whole number; refuses (CONFIGURATION) all else, and absence without a default."""
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal(Reason.CONFIGURATION, f"{key} must be a whole number", field=key)
    return value


def read_text(data: Mapping[str, JsonValue], key: str) -> str:
    """Return a string; refuses (CONFIGURATION) all else, and absence."""
    value = data.get(key)
    if not isinstance(value, str):
        raise Refusal(Reason.CONFIGURATION, f"{key} must be a string", field=key)
    return value


def read_flag(data: Mapping[str, JsonValue], key: str) -> bool:
    """Return true or false; refuses (CONFIGURATION) all else, and absence."""
    value = data.get(key)
    if not isinstance(value, bool):
        raise Refusal(Reason.CONFIGURATION, f"{key} must be true or false", field=key)
    return value


def refuse_unknown_keys(data: Mapping[str, JsonValue], known: Collection[str]) -> None:
    """Refuse (CONFIGURATION) keys that nothing would read: a misspelt option must not pass."""
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise Refusal(
            Reason.CONFIGURATION,
            f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}",
            field=unknown[0],
        )
