"""Errors as RFC 9457 problem details, and the one table from reasons to HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aggregator_service.store.base import StoreUnavailable
from flasc_core.errors import Reason, Refusal

__all__ = [
    "MEDIA_TYPE",
    "STATUS",
    "FieldProblem",
    "Problem",
    "field_problems",
    "handle_problems",
    "problem_response",
    "refusals",
    "unavailable",
]

MEDIA_TYPE: Final = "application/problem+json"
log = structlog.get_logger(__name__)

_BAD, _UNPROCESSABLE = HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY
_UNAUTHORIZED, _CONFLICT = HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT
_NOT_FOUND, _UNAVAILABLE = HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE

STATUS: Final[Mapping[Reason, HTTPStatus]] = MappingProxyType(
    {
        Reason.MALFORMED_MESSAGE: _BAD,
        Reason.FIELD_REQUIRED: _UNPROCESSABLE,
        Reason.FIELD_RANGE: _UNPROCESSABLE,
        Reason.UNKNOWN_ENUM: _UNPROCESSABLE,
        Reason.MESSAGE_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Reason.CHUNK_SEQUENCE: _UNPROCESSABLE,
        Reason.DIGEST_MISMATCH: _UNPROCESSABLE,
        Reason.OFFSET_RANGE: _UNPROCESSABLE,
        Reason.VALUE_FORMAT: _UNPROCESSABLE,
        Reason.DIMENSION_MISMATCH: _UNPROCESSABLE,
        Reason.SEGMENT_ORDER: _UNPROCESSABLE,
        Reason.INDEX_RANGE: _UNPROCESSABLE,
        Reason.K_BUDGET: _UNPROCESSABLE,
        Reason.LENGTH_MISMATCH: _UNPROCESSABLE,
        Reason.NON_FINITE: _UNPROCESSABLE,
        Reason.VALUE_RANGE: _UNPROCESSABLE,
        Reason.WEIGHT_RANGE: _UNPROCESSABLE,
        Reason.CHECKSUM_MISMATCH: _UNPROCESSABLE,
        Reason.DECOMPRESS_LIMIT: _UNPROCESSABLE,
        Reason.CREDENTIAL_MISSING: _UNAUTHORIZED,
        Reason.CREDENTIAL_INVALID: _UNAUTHORIZED,
        Reason.DEVICE_REVOKED: HTTPStatus.FORBIDDEN,
        Reason.TASK_UNKNOWN: _NOT_FOUND,
        Reason.ROUND_UNKNOWN: _NOT_FOUND,
        Reason.ASSIGNMENT_UNKNOWN: _NOT_FOUND,
        Reason.UPDATE_UNKNOWN: _NOT_FOUND,
        Reason.ADAPTER_UNKNOWN: _NOT_FOUND,
        Reason.DEVICE_UNKNOWN: _NOT_FOUND,
        Reason.KEY_UNKNOWN: _NOT_FOUND,
        Reason.LAYOUT_MISMATCH: _UNPROCESSABLE,
        Reason.BASE_MODEL_MISMATCH: _UNPROCESSABLE,
        Reason.ASSIGNMENT_EXPIRED: _CONFLICT,
        Reason.ROUND_CLOSED: _CONFLICT,
        Reason.STALE_BASE: _CONFLICT,
        Reason.UPDATE_CONFLICT: _CONFLICT,
        Reason.UPDATE_RETRACTED: _CONFLICT,
        Reason.TASK_STATE: _CONFLICT,
        Reason.NAME_TAKEN: _CONFLICT,
        Reason.CONFIGURATION: _UNPROCESSABLE,
        Reason.OVERLOADED: _UNAVAILABLE,
        Reason.STORAGE: _UNAVAILABLE,
    }
)


# What Starlette and the bound on bodies raise by status.
_HTTP_REASONS: Final[Mapping[HTTPStatus, Reason]] = MappingProxyType(
    {
        _BAD: Reason.MALFORMED_MESSAGE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Reason.MESSAGE_TOO_LARGE,
    }
)


class FieldProblem(BaseModel):
    """One field of a request that does not fit."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(examples=["body.lifetime_days"])
    message: str = Field(examples=["Input should be less than or equal to 3660"])


class Problem(BaseModel):
    """RFC 9457 problem details; programs go by `reason`, people by `detail`."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no such task"])
    reason: Reason | None = Field(default=None, description="Machine-readable; never renamed.")
    facts: dict[str, str | int | float] = Field(
        default_factory=dict, description="What the refusal is about.", examples=[{"task": "news"}]
    )
    errors: list[FieldProblem] = Field(
        default_factory=list, description="Fields that do not fit, for a request that has any."
    )
    incident: str | None = Field(
        default=None, description="Names the log entry of an unexpected failure."
    )


def problem_response(refusal: Refusal, errors: Sequence[FieldProblem] = ()) -> Response:
    status = STATUS[refusal.reason]
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=refusal.message,
        reason=refusal.reason,
        facts=dict(refusal.facts),
        errors=list(errors),
    )
    headers: dict[str, str] = {}
    if status is _UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="flasc"'
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(refusal.retry_after.total_seconds())))
    return _respond(problem, headers)


def unavailable(error: StoreUnavailable) -> Refusal:
    log.warning("storage_unavailable", error=str(error))
    return Refusal(
        Reason.STORAGE,
        "the database or the blob store does not answer; try again",
        retry_after=timedelta(seconds=5),
    )


def refusals(*reasons: Reason) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of a route's refusals, with an example for each."""
    described: dict[int | str, dict[str, Any]] = {}
    for reason in reasons:
        status = STATUS[reason]
        entry = described.setdefault(
            status.value,
            {
                "description": status.phrase,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        entry["content"][MEDIA_TYPE]["examples"][reason.value] = {
            "value": {
                "type": "about:blank",
                "title": status.phrase,
                "status": status.value,
                "detail": "what is wrong, and what to do next",
                "reason": reason.value,
            }
        }
    return described


def handle_problems(app: FastAPI) -> None:
    """Makes every error of `app` a problem document, unexpected ones included."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def field_problems(errors: Sequence[Any]) -> list[FieldProblem]:
    """Pydantic's errors, without the input they quote: it may hold a secret."""
    return [
        FieldProblem(field=".".join(str(part) for part in error["loc"]), message=error["msg"])
        for error in errors
    ]


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - registered for nothing else
    return problem_response(error)


async def _unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable)  # noqa: S101
    return problem_response(unavailable(error))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    kinds = {problem["type"] for problem in error.errors()}
    if "json_invalid" in kinds:
        reason, detail = Reason.MALFORMED_MESSAGE, "the body is not JSON"
    elif kinds == {"missing"}:
        reason, detail = Reason.FIELD_REQUIRED, "the request lacks fields"
    else:
        reason, detail = Reason.FIELD_RANGE, "the request has fields that do not fit"
    return problem_response(Refusal(reason, detail), field_problems(error.errors()))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=error.detail,
        reason=_HTTP_REASONS.get(status),
    )
    return _respond(problem, dict(error.headers or {}))


async def _unexpected(_: Request, error: Exception) -> Response:
    incident = uuid4().hex
    log.error("http_request_failed", incident=incident, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _respond(
        Problem(
            title=status.phrase,
            status=status,
            detail="an unexpected failure; the log has it under this incident",
            incident=incident,
        ),
        {},
    )


def _respond(problem: Problem, headers: Mapping[str, str]) -> Response:
    content = problem.model_dump_json(exclude_defaults=False, exclude_none=True)
    return Response(
        content, status_code=problem.status, headers=dict(headers), media_type=MEDIA_TYPE
    )
