"""A new task as multipart/form-data: its name, its configuration, and its initial adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from admin_api.problems import field_problems
from admin_api.schemas.task_config import TaskConfigBody
from flasc_core.errors import Reason, Refusal

__all__ = ["REQUEST_BODY", "TaskUpload", "read_task_upload"]

_MAX_TEXT_BYTES: Final = 8 << 20

# What OpenAPI says of the body that `read_task_upload` reads.
REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["name", "config", "adapter"],
                "properties": {
                    "name": {
                        "type": "string",
                        "pattern": "^[a-z0-9][a-z0-9-]{0,62}$",
                        "examples": ["debian-sections"],
                    },
                    "config": {"$ref": "#/components/schemas/TaskConfigBody"},
                    "adapter": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "A safetensors file: float32 tensors of the layout, named "
                        "as in it or as PEFT saves them.",
                        "examples": ["(bytes)"],
                    },
                },
            },
            "encoding": {"config": {"contentType": "application/json"}},
        }
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpload:
    name: str
    config: TaskConfigBody
    adapter: bytes


async def read_task_upload(request: Request) -> TaskUpload:
    """Refuses FIELD_REQUIRED, FIELD_RANGE and MALFORMED_MESSAGE."""
    async with request.form(max_files=3, max_fields=3, max_part_size=_MAX_TEXT_BYTES) as form:
        name = await _part(form, "name")
        config = await _part(form, "config")
        adapter = await _part(form, "adapter")
    return TaskUpload(name=_text(name), config=_config(config), adapter=adapter)


async def _part(form: FormData, name: str) -> bytes:
    part = form.get(name)
    if part is None:
        raise Refusal(
            Reason.FIELD_REQUIRED,
            "send multipart/form-data with the parts name, config and adapter",
            field=name,
        )
    # Clients may send any part as a file: `curl -F config=@task.json` does.
    return await part.read() if isinstance(part, UploadFile) else part.encode()


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refusal(Reason.MALFORMED_MESSAGE, "the name is not UTF-8") from None


def _config(value: bytes) -> TaskConfigBody:
    try:
        return TaskConfigBody.model_validate_json(value, strict=True)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        first, *rest = field_problems(problems)
        more = f" (and {len(rest)} more)" if rest else ""
        malformed = problems[0]["type"] == "json_invalid"
        raise Refusal(
            Reason.MALFORMED_MESSAGE if malformed else Reason.FIELD_RANGE,
            f"config: {first.field}: {first.message}{more}".replace("config: : ", "config: "),
            field=f"config.{first.field}".rstrip("."),
        ) from None
