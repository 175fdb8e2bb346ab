"""Health, metrics and the API's own description."""

from __future__ import annotations

from typing import Any, Literal

import prometheus_client
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from admin_api.problems import refusals
from admin_api.schemas.common import Output
from admin_api.services import ServicesDep
from flasc_core.errors import Reason

__all__ = ["router"]

router = APIRouter(tags=["operations"])

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus text.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "# TYPE flasc_updates_accepted_total counter\n",
            }
        },
    }
}


class Health(Output):
    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def get_health() -> Health:
    """Tell that the process answers."""
    return Health()


@router.get("/readyz", responses=refusals(Reason.STORAGE))
def get_readiness(services: ServicesDep) -> Health:
    """Tell that the database and the blob store can be written."""
    services.store.check_ready()
    services.blobs.check_ready()
    return Health()


@router.get("/metrics", response_class=Response, responses=_METRICS)
def get_metrics() -> Response:
    """Give this process's metrics to Prometheus."""
    return Response(
        prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
    )


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())
