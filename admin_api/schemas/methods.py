"""Federated methods, as operators choose them: made of the settings of every method."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, create_model

from admin_api.schemas.common import Input
from flasc_core.methods import METHODS, Method
from flasc_core.methods.settings import SettingField, fields_of

__all__ = ["METHOD_BODIES", "MethodBody", "method_body"]


def method_body(kind: type[Method]) -> type[Input]:
    """Return the schema of a method: its settings with bounds, defaults and descriptions."""
    name: Any = Literal[kind.name]
    fields: dict[str, Any] = {field.name: _schema_of(field) for field in fields_of(kind)}
    return create_model(
        f"{kind.__name__}Body",
        __base__=Input,
        __doc__=(inspect.getdoc(kind) or "").partition("\n")[0],
        **{"name": (name, ...)} | fields,
    )


def _schema_of(field: SettingField) -> tuple[Any, Any]:
    """Return a field's type and what pydantic says of it."""
    told = field.setting
    # As plain text: pydantic names a member of an enum by its repr, and a caller writes its value.
    values: Any = Literal[tuple(map(str, told.choices))] if told.choices else field.kind
    bounds = Field(gt=told.above, ge=told.at_least, le=told.at_most)
    bounded: Any = Annotated[values, bounds]
    return (
        bounded | None if field.optional else bounded,
        Field(
            default=... if field.default is dataclasses.MISSING else field.default,
            description=told.description,
            examples=None if told.example is None else [told.example],
        ),
    )


METHOD_BODIES: Final[Mapping[str, type[Input]]] = MappingProxyType(
    {name: method_body(kind) for name, kind in METHODS.items()}
)

if TYPE_CHECKING:
    # Which of them it is, is for the domain to tell, which reads it as JSON.
    MethodBody: TypeAlias = Input
else:
    MethodBody = Annotated[reduce(or_, METHOD_BODIES.values()), Field(discriminator="name")]
