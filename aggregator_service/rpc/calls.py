"""What every rpc goes through: identity, errors, one log line, metrics.

bytes ──▶ authenticate ──▶ body (parse, one use case, encode) ──▶ bytes
                └── Refusal ─▶ its status + ErrorInfo · StoreUnavailable ─▶ UNAVAILABLE
                    anything else ─▶ INTERNAL with an id; the traceback goes to the log
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NoReturn, TypeAlias, TypeVar
from uuid import UUID, uuid4

import grpc
import structlog

from aggregator_service.app.authenticate_device import AuthenticateDevice
from aggregator_service.app.count_refusal import CountRefusal
from aggregator_service.rpc.errors import STATUS, storage_refusal, too_slow_refusal
from aggregator_service.store.base import StoreUnavailable
from aggregator_service.telemetry import REFUSALS, RPC_SECONDS
from flasc_core.errors import Reason, Refusal
from flasc_core.metadata import STATUS_DETAILS
from flasc_core.status import encode_status

__all__ = ["Call", "Calls", "Context"]

T = TypeVar("T")
# grpc.aio's own type has two type parameters that say nothing about bytes.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_BEARER: Final = "Bearer "

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Call:
    """One rpc in progress: who calls, and what its log line will say."""

    method: str
    id: str = field(default_factory=lambda: uuid4().hex)
    device_id: UUID | None = None
    facts: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def caller(self) -> UUID:
        if self.device_id is None:
            raise AssertionError("a body runs after its caller is known")
        return self.device_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Runs blocking use cases on `workers`, and rpc bodies inside their guard."""

    authenticate: AuthenticateDevice
    count_refusal: CountRefusal
    workers: Executor
    _background: set[asyncio.Future[Any]] = field(default_factory=set)

    async def work(self, use_case: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Runs a blocking use case in the pool with this call's log context."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.workers, lambda: context.run(use_case, *args, **kwargs)
        )

    async def work_to_the_end(
        self, use_case: Callable[..., T], *args: object, **kwargs: object
    ) -> T:
        """As `work`, but a call that is cancelled meanwhile does not keep it from being done."""
        task = asyncio.ensure_future(self.work(use_case, *args, **kwargs))
        self._remember(task)
        return await asyncio.shield(task)

    def later(self, use_case: Callable[..., None], *args: object) -> None:
        """Runs book-keeping that must survive the call's cancellation; failures are logged."""
        self._remember(asyncio.ensure_future(self._logged(use_case, *args)))

    async def settle(self) -> None:
        """Waits for the book-keeping under way."""
        while self._background:
            await asyncio.wait(set(self._background))

    def _remember(self, task: asyncio.Future[Any]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @asynccontextmanager
    async def guard(self, method: str, context: Context) -> AsyncIterator[Call]:
        call = Call(method=method)
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            call.device_id = await self._identify(context)
            yield call
        except (Refusal, StoreUnavailable, TimeoutError) as error:
            refusal = _as_refusal(error)
            code = STATUS[refusal.reason]
            await self._refuse(call, context, refusal)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            # The one place that turns a bug into an answer.
            log.exception("rpc_failed", call=call.id, method=method)
            code = grpc.StatusCode.INTERNAL
            await context.abort(code, f"internal error {call.id}")
        finally:
            _log_line(call, code, time.perf_counter() - started)

    async def _identify(self, context: Context) -> UUID:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str) and value.startswith(_BEARER):
                device = await self.work(self.authenticate, value.removeprefix(_BEARER))
                return device.id
        raise Refusal(
            Reason.CREDENTIAL_MISSING, "send the device's credential as `authorization: Bearer …`"
        )

    async def _refuse(self, call: Call, context: Context, refusal: Refusal) -> NoReturn:
        call.facts["reason"] = refusal.reason
        REFUSALS.labels(reason=refusal.reason).inc()
        # Strangers do not get to write to the database.
        if call.device_id is not None and refusal.reason is not Reason.STORAGE:
            self.later(self.count_refusal, refusal)
        code = STATUS[refusal.reason]
        number: int = code.value[0]
        details = ((STATUS_DETAILS, encode_status(number, refusal)),)
        await context.abort(code, refusal.message, details)

    async def _logged(self, use_case: Callable[..., None], *args: object) -> None:
        try:
            await self.work(use_case, *args)
        except Exception:
            log.exception("book_keeping_failed")


def _as_refusal(error: Refusal | StoreUnavailable | TimeoutError) -> Refusal:
    match error:
        case Refusal():
            return error
        case StoreUnavailable():
            log.warning("storage_unavailable", error=str(error))
            return storage_refusal()
        case _:
            return too_slow_refusal()


def _log_line(call: Call, code: grpc.StatusCode, seconds: float) -> None:
    RPC_SECONDS.labels(method=call.method, code=code.name).observe(seconds)
    device = "" if call.device_id is None else sha256(call.device_id.bytes).hexdigest()[:12]
    log.info(
        "rpc",
        call=call.id,
        method=call.method,
        code=code.name,
        device=device,
        seconds=round(seconds, 6),
        **call.facts,
    )
