"""The API's description: every operation gets an example, made from those of its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from admin_api.problems import Problem
from admin_api.schemas.task_config import TaskConfigBody

__all__ = ["describe"]

_REF: Final = "#/components/schemas/"
_OPEN: Final = ("/healthz", "/readyz")

# JSON of a schema: OpenAPI's own words, so no types of ours fit.
_Json = dict[str, Any]


def describe(app: FastAPI) -> _Json:
    """The OpenAPI document, complete with examples and security."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    components: _Json = document.setdefault("components", {})
    schemas: _Json = components.setdefault("schemas", {})
    for model in (Problem, TaskConfigBody):
        schema = model.model_json_schema(ref_template=_REF + "{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key: `flk_…`."}
    }
    document["security"] = [{"key": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in _OPEN:
                operation["security"] = []
            _add_examples(operation, schemas)
    return document


def _add_examples(operation: _Json, schemas: _Json) -> None:
    for content in _contents(operation):
        for media in content.values():
            if "example" not in media and "examples" not in media:
                media["example"] = _example(media.get("schema", {}), schemas)


def _contents(operation: _Json) -> Iterator[_Json]:
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    return (body["content"] for body in bodies if "content" in body)


def _example(schema: Mapping[str, Any], schemas: _Json) -> Any:
    """One value of `schema`: its own example, or one made of its parts."""
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].removeprefix(_REF)], schemas)
    given = [schema[key][0] for key in ("examples", "enum") if schema.get(key)]
    given += [schema[key] for key in ("const", "default") if schema.get(key) is not None]
    if given:
        return given[0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _example(schema[key][0], schemas)
    if schema.get("type") == "array":
        return [_example(schema["items"], schemas)]
    properties = schema.get("properties", {})
    made = {name: _example(part, schemas) for name, part in properties.items()}
    return _PLAIN.get(schema.get("type", "object"), made)


_PLAIN: Final[Mapping[str, Any]] = {
    "string": "",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "null": None,
}
