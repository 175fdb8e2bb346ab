"""Adapter versions: list them, and take them away as files."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from admin_api.lookup import find_task, page_of
from admin_api.problems import refusals
from admin_api.routes.tasks import TaskRef
from admin_api.schemas.adapters import AdapterView
from admin_api.schemas.common import Page
from admin_api.services import Limit, NumberCursor, Services, ServicesDep
from aggregator_service.app.adapter_files import load_masters
from aggregator_service.app.export_adapter import Export, WeightsKind
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["router"]

router = APIRouter(prefix="/v1/tasks/{task}/adapters", tags=["adapters"])

Version = Annotated[
    Literal["latest"] | Annotated[int, Path(ge=0, le=2**31 - 1)],
    Path(description="A version's number, or latest.", examples=["latest"]),
]
Weights = Annotated[
    WeightsKind,
    Query(
        description="masked: what devices run, the decoded download; master: every weight that "
        "the server keeps."
    ),
]
IfNoneMatch = Annotated[str | None, Header(description="An ETag: answered 304 if it still fits.")]


def _file(media_type: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "contentMediaType": media_type}
    return {
        200: {
            "description": "The file. ETag is its SHA-256.",
            "headers": {"ETag": {"schema": {"type": "string"}}},
            "content": {media_type: {"schema": schema, "example": "(bytes)"}},
        },
        304: {"description": "The same file as If-None-Match names."},
        **refusals(Reason.TASK_UNKNOWN, Reason.ADAPTER_UNKNOWN),
    }


@router.get("", responses=refusals(Reason.TASK_UNKNOWN))
def list_adapters(
    services: ServicesDep, task: TaskRef, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[AdapterView]:
    """List a task's adapter versions, newest first."""

    def body(tx: Transaction) -> Page[AdapterView]:
        owner = find_task(tx, task)
        found = tx.adapters.page(owner.id, limit=limit + 1, before_version=cursor)
        dimension = owner.config.layout.dim
        show = partial(map, lambda adapter: AdapterView.of(adapter, dimension))
        return page_of(found, limit, show, lambda adapter: adapter.version)

    return services.store.read("list_adapters", body)


@router.get(
    "/{version}/adapter.safetensors",
    response_class=Response,
    responses=_file("application/octet-stream"),
)
def get_adapter_tensors(
    services: ServicesDep,
    task: TaskRef,
    version: Version,
    weights: Weights = WeightsKind.MASKED,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Download a version as one safetensors file, its tensors named as PEFT saves them."""
    export = _export(services, task, version)
    return _download(
        export.safetensors(weights),
        name=f"{export.task.name}-v{export.adapter.version}-{weights}.safetensors",
        media_type="application/octet-stream",
        if_none_match=if_none_match,
    )


@router.get("/{version}/peft.zip", response_class=Response, responses=_file("application/zip"))
def get_adapter_folder(
    services: ServicesDep,
    task: TaskRef,
    version: Version,
    weights: Weights = WeightsKind.MASKED,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Download a version as a folder for PeftModel.from_pretrained, with a card."""
    export = _export(services, task, version)
    return _download(
        export.peft_zip(weights),
        name=f"{export.task.name}-v{export.adapter.version}-{weights}.zip",
        media_type="application/zip",
        if_none_match=if_none_match,
    )


def _export(services: Services, reference: str, version: int | Literal["latest"]) -> Export:
    def body(tx: Transaction) -> tuple[Task, Adapter]:
        task = find_task(tx, reference)
        if version == "latest":
            adapter = tx.adapters.latest(task.id)
        else:
            adapter = tx.adapters.get(task.id, version)
        if adapter is None:
            raise Refusal(Reason.ADAPTER_UNKNOWN, "the task has no such version", version=version)
        return task, adapter

    task, adapter = services.store.read("find_adapter", body)
    widest = task.config.widest_tier(adapter.version)
    masters = load_masters(services.store, services.blobs, task, adapter.version, widest)
    return Export(task=task, adapter=adapter, masters=masters)


def _download(data: bytes, *, name: str, media_type: str, if_none_match: str | None) -> Response:
    etag = f'"{sha256(data).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(data, media_type=media_type, headers=headers)
