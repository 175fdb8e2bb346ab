"""Every method by the name that task configurations use: all that modules beside this one have."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue, read_text
from flasc_core.methods.plan import Method
from flasc_core.methods.settings import read_settings

__all__ = ["METHODS", "method_from_json"]


def _found() -> Iterator[type[Method]]:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        for value in vars(import_module(f"{__package__}.{module.name}")).values():
            if (
                isinstance(value, type)
                and issubclass(value, Method)
                and not inspect.isabstract(value)
            ):
                yield value


METHODS: Final[Mapping[str, type[Method]]] = MappingProxyType(
    {kind.name: kind for kind in sorted(_found(), key=lambda kind: kind.name)}
)


def method_from_json(data: Mapping[str, JsonValue]) -> Method:
    """Read what `to_json` wrote; missing settings take their defaults. Refuses CONFIGURATION."""
    name = read_text(data, "name")
    kind = METHODS.get(name)
    if kind is None:
        raise Refusal(
            Reason.CONFIGURATION,
            f"method {name!r} is unknown; known are {', '.join(METHODS)}",
            field="name",
        )
    return read_settings(data, kind)
