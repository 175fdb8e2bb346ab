"""A device's part in a task: check in, download, train, hand in, wait as told; resumable anywhere.

    step()  ── an update is pending ───────────────▶ hand it in ──▶ receipt, or refused for good
       │                                                ▲
       └──▶ check in ──▶ assignment ──▶ download ──▶ evaluate ──▶ train ──▶ encode ──▶ on disk
                    ├──▶ evaluation only ──▶ download ──▶ evaluate ──▶ report
                    ├──▶ retry window
                    └──▶ finished

An update is durable before its first byte leaves. After a crash the same bytes are handed in again,
so no update is trained or encoded twice.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from os import PathLike
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final, Self

from client_sdk import _task
from client_sdk._errors import (
    AssignmentOver,
    ModelMismatch,
    ParticipantError,
    ProtocolError,
    ServiceError,
    StateDamaged,
    StateFolderError,
    TrainingFailed,
    TransferDamaged,
    UpdateRejected,
)
from client_sdk._pauses import Pauses
from client_sdk._retry import CALL_RETRIES, SESSION_RETRIES, Retrier, RetryPolicy
from client_sdk._rpc import CALL_LIMITS, CLIENT_VERSION, CallLimits, DeviceService, open_channel
from client_sdk._state import PendingUpdate, StateFolder
from client_sdk._task import Task
from client_sdk._work import StopRequested, Worker
from client_sdk.events import CheckedIn, Event, Failed, Finished, Refused, Uploaded, Waiting
from client_sdk.results import StepOutcome, StepResult, Summary
from client_sdk.trainer import Evaluation, Trainer
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["Participant"]

_log = logging.getLogger(__name__)

# In a row; a device whose work fails again and again would only use up places in rounds.
_MAX_FAILURES: Final = 3
_MAX_DETAIL_CHARACTERS: Final = 500

_TOOK_PART: Final = frozenset({StepOutcome.UPDATED, StepOutcome.EVALUATED})
_ENDED: Final = frozenset({StepOutcome.FINISHED, StepOutcome.STOPPED})


class Participant:
    """One device in one task; used from one thread, apart from stop().

    The state folder belongs to this task alone and to one process at a time. `on_event` is called
    on the same thread and must not raise. `sleep`, `clock` (monotonic seconds) and `rng` (jitter)
    are for tests and for apps with schedulers of their own. Raises StateFolderError, and ValueError
    for a credential that no request can carry.
    """

    def __init__(
        self,
        address: str,
        *,
        task: str,
        credential: str,
        trainer: Trainer,
        state_folder: str | PathLike[str],
        tls_root_certificates: bytes | None = None,
        insecure: bool = False,
        on_event: Callable[[Event], None] | None = None,
        call_limits: CallLimits = CALL_LIMITS,
        call_retries: RetryPolicy = CALL_RETRIES,
        session_retries: RetryPolicy = SESSION_RETRIES,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._task_name: Final = task
        self._trainer: Final = trainer
        self._on_event: Final = on_event or _ignore
        self._is_stopping = False
        # Unlike an event, it may be put to while the thread that waits is inside: by a signal.
        self._wake: Final[SimpleQueue[None]] = SimpleQueue()
        self._sleep: Final = sleep or self._sleep_until_stopped
        rng = rng or random.SystemRandom()
        self._pauses: Final = Pauses(rng)
        self._calls: Final = Retrier(call_retries, clock=clock, sleep=self._wait, rng=rng)
        self._session: Final = Retrier(session_retries, clock=clock, sleep=self._wait, rng=rng)
        self._task: Task | None = None
        self._finished = False
        self._failures = 0
        self._state: Final = StateFolder(Path(state_folder), task=task)
        with ExitStack() as opened:
            opened.callback(self._state.close)
            self._channel: Final = open_channel(
                address, tls_root_certificates=tls_root_certificates, insecure=insecure
            )
            opened.callback(self._channel.close)
            self._service: Final = DeviceService(
                self._channel, credential, limits=call_limits, check_stopped=self._check_stopped
            )
            # Nothing has failed: they stay open.
            opened.pop_all()
        self._worker: Final = Worker(
            service=self._service,
            calls=self._calls,
            state=self._state,
            trainer=trainer,
            on_event=self._on_event,
            check_stopped=self._check_stopped,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the connection and the state folder. What is pending stays for the next time."""
        self._channel.close()
        self._state.close()

    def stop(self) -> None:
        """End run() or step() soon, from any thread or a signal's handler.

        Training ends after its current step, a call within a second, and giving back the place in
        the round takes 5 seconds at most, or what `call_limits` says; an evaluation goes on to its
        end. What is not handed in stays.
        """
        self._is_stopping = True
        self._wake.put(None)

    @property
    def summary(self) -> Summary:
        totals = self._state.totals
        return Summary(
            finished=self._finished,
            updates_accepted=totals.updates_accepted,
            evaluations_reported=totals.evaluations_reported,
            payload_bytes_sent=totals.payload_bytes_sent,
            payload_bytes_received=totals.payload_bytes_received,
        )

    def run(self, *, until_finished: bool = True) -> Summary:
        """Take part until the task is finished, or just once; waits as the service asks.

        A service that is away is waited for within `session_retries`; then its ServiceError
        escapes, as does every error that waiting does not mend.
        """
        try:
            while True:
                result = self._session.run(self.step, self._worker.told_of("step"))
                took_part = not until_finished and result.outcome in _TOOK_PART
                if took_part or result.outcome in _ENDED:
                    return self.summary
                self._on_event(Waiting(seconds=result.wait_seconds))
                self._wait(result.wait_seconds)
        except StopRequested:
            return self.summary

    def step(self) -> StepResult:
        """Do one cycle without the wait at its end; safe to repeat after any error or crash."""
        try:
            self._check_stopped()
            try:
                pending = self._state.load_pending()
            except StateDamaged as error:
                # Nothing is left to hand in; the service still knows what it accepted.
                _log.error("dropping a damaged update: %s", error)
                self._state.drop_pending()
                pending = None
            # What was kept may have been sent in part, or even been accepted.
            return self._hand_in(pending, was_tried=True) if pending else self._check_in()
        except StopRequested:
            return StepResult(outcome=StepOutcome.STOPPED)

    # -- checking in

    def _check_in(self) -> StepResult:
        known = self._state.load_task_spec()
        request = pb.CheckInRequest(
            task_name=self._task_name,
            known_task_sha256=_task.digest(known) if known else b"",
            layout_fingerprint=self._trainer.layout.fingerprint,
            base_model_sha256=self._trainer.base_model_sha256,
            client_version=CLIENT_VERSION,
        )
        response = self._calls.run(
            lambda: self._service.check_in(request), self._worker.told_of("CheckIn")
        )
        match response.WhichOneof("result"):
            case "assignment":
                return self._take(response.assignment, known)
            case "retry_window":
                return self._later(StepOutcome.NO_WORK, response.retry_window)
            case "finished":
                self._finished = True
                self._on_event(Finished(final_version=response.finished.final_version))
                return StepResult(outcome=StepOutcome.FINISHED)
        raise ProtocolError("the service's answer to a check-in is none that this version knows")

    def _take(self, assignment: pb.Assignment, known: bytes) -> StepResult:
        try:
            task = self._open_task(assignment, known)
            evaluates_only = self._announce(assignment)
            download = self._worker.fetch(assignment, task)
            evaluation = self._worker.evaluate(assignment, task, download)
            if evaluates_only:
                return self._report_evaluation(assignment, evaluation)
            pending = self._worker.train(assignment, task, download, evaluation)
        except AssignmentOver as error:
            return self._refused(assignment.round_number, error)
        except (TrainingFailed, TransferDamaged) as error:
            return self._failed(assignment, error)
        except (ModelMismatch, ProtocolError) as error:
            self._leave(assignment.assignment_id, pb.OUTCOME_FAILED, str(error))
            raise
        except StateFolderError:
            # Its message has a path of the device.
            self._leave(
                assignment.assignment_id,
                pb.OUTCOME_FAILED,
                "the device can not use its state folder",
            )
            raise
        except StopRequested:
            self._leave(assignment.assignment_id, pb.OUTCOME_GAVE_UP, "stopped on the device")
            raise
        # Outside the handlers above: from here on the update is kept, whatever happens.
        return self._hand_in(pending, was_tried=False)

    def _open_task(self, assignment: pb.Assignment, known: bytes) -> Task:
        data = assignment.task_spec or known
        if _task.digest(data) != assignment.task_sha256:
            raise ProtocolError("the task specification is not the one that the assignment names")
        if self._task is not None and self._task.sha256 == assignment.task_sha256:
            return self._task
        task = _task.read_task(data)
        _task.check_layout(task, self._trainer.layout)
        _task.check_base_model(task, self._trainer.base_model_sha256)
        if data != known:
            self._state.save_task_spec(data)
        self._task = task
        return task

    def _announce(self, assignment: pb.Assignment) -> bool:
        """Return whether the assignment is to evaluate only."""
        if assignment.purpose not in (pb.PURPOSE_TRAIN, pb.PURPOSE_EVALUATE):
            raise ProtocolError(f"the assignment's purpose {assignment.purpose} is unknown here")
        evaluates_only = assignment.purpose == pb.PURPOSE_EVALUATE
        self._on_event(
            CheckedIn(
                round_number=assignment.round_number,
                adapter_version=assignment.download.adapter_version,
                download_bytes=assignment.download.size_bytes,
                evaluates_only=evaluates_only,
            )
        )
        return evaluates_only

    # -- how an assignment ends

    def _hand_in(self, pending: PendingUpdate, *, was_tried: bool) -> StepResult:
        try:
            receipt, window = self._worker.send(pending, was_tried=was_tried)
        except AssignmentOver as error:
            self._state.drop_pending()
            return self._refused(pending.round_number, error)
        except (UpdateRejected, ProtocolError) as error:
            if not error.reason:
                # Not the service's own answer: the bytes may still pass elsewhere or later.
                raise
            self._state.drop_pending()
            # Without it the service would give the same work again, which comes to the same.
            self._leave(pending.request.header.assignment_id, pb.OUTCOME_FAILED, str(error))
            self._count_failure(error)
            return self._refused(pending.round_number, error)
        self._state.count_accepted(pending)
        self._state.drop_pending()
        self._succeeded()
        self._on_event(
            Uploaded(
                round_number=pending.round_number,
                payload_bytes=pending.request.header.payload_size_bytes,
                update_id=receipt.update_id,
                ledger_sequence=receipt.ledger_sequence,
                duplicate=receipt.duplicate,
            )
        )
        return self._later(StepOutcome.UPDATED, window)

    def _report_evaluation(
        self, assignment: pb.Assignment, evaluation: Evaluation | None
    ) -> StepResult:
        if evaluation is None:
            detail = "the device has no held-out examples"
            self._on_event(Failed(round_number=assignment.round_number, detail=detail))
            window = self._report(assignment, pb.OUTCOME_GAVE_UP, detail=detail)
            return self._later(StepOutcome.FAILED, window)
        window = self._report(assignment, pb.OUTCOME_EVALUATED, evaluation=evaluation)
        self._state.count_evaluation()
        self._succeeded()
        return self._later(StepOutcome.EVALUATED, window)

    def _refused(self, round_number: int, error: ServiceError) -> StepResult:
        _log.info("the assignment is over: %s", error)
        self._on_event(Refused(round_number=round_number, reason=error.reason, message=str(error)))
        return StepResult(outcome=StepOutcome.REFUSED, wait_seconds=self._pauses.after_refusal())

    def _failed(
        self, assignment: pb.Assignment, error: TrainingFailed | TransferDamaged
    ) -> StepResult:
        self._on_event(Failed(round_number=assignment.round_number, detail=str(error)))
        try:
            window = self._report(assignment, pb.OUTCOME_FAILED, detail=str(error))
        except AssignmentOver:
            window = pb.RetryWindow()
        self._count_failure(error)
        return self._later(StepOutcome.FAILED, window)

    def _succeeded(self) -> None:
        self._failures = 0
        self._pauses.after_success()

    def _count_failure(self, error: ParticipantError) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise error

    def _report(
        self,
        assignment: pb.Assignment,
        outcome: pb.Outcome,
        *,
        detail: str = "",
        evaluation: Evaluation | None = None,
    ) -> pb.RetryWindow:
        request = pb.ReportOutcomeRequest(
            assignment_id=assignment.assignment_id,
            outcome=outcome,
            detail=" ".join(detail.split())[:_MAX_DETAIL_CHARACTERS],
            evaluation=None if evaluation is None else evaluation.to_message(),
        )
        response = self._calls.run(
            lambda: self._service.report_outcome(request), self._worker.told_of("ReportOutcome")
        )
        return response.retry_window

    def _leave(self, assignment_id: bytes, outcome: pb.Outcome, detail: str) -> None:
        """Free the place in the round, in one attempt; without it the place expires."""
        request = pb.ReportOutcomeRequest(
            assignment_id=assignment_id,
            outcome=outcome,
            detail=" ".join(detail.split())[:_MAX_DETAIL_CHARACTERS],
        )
        try:
            self._service.leave(request)
        except ServiceError as error:
            _log.info("the assignment was left unreported: %s", error)

    # -- waiting

    def _later(self, outcome: StepOutcome, window: pb.RetryWindow) -> StepResult:
        return StepResult(outcome=outcome, wait_seconds=self._pauses.within(window))

    def _wait(self, seconds: float) -> None:
        self._check_stopped()
        self._sleep(seconds)
        self._check_stopped()

    def _sleep_until_stopped(self, seconds: float) -> None:
        with suppress(Empty):
            self._wake.get(timeout=seconds)

    def _check_stopped(self) -> None:
        if self._is_stopping:
            raise StopRequested


def _ignore(_: Event) -> None:
    pass
