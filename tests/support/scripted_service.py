"""A peer for the SDK: the device service over a real socket, with faults queued per rpc.

It keeps one task, hands out assignments, and checks updates as a service must; it has no rounds, no
database and no driver. Only what a test scripts goes wrong, and in the order that it was scripted.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import grpc

from flasc_core import wire
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout
from flasc_core.metadata import STATUS_DETAILS, UPLOAD_OPEN
from flasc_core.methods import TrainRule, UploadRule
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.pb.v1 import task_spec_pb2
from flasc_core.sparse import SparseVector
from flasc_core.status import encode_status

__all__ = ["CREDENTIAL", "Fault", "Peer", "a_task_spec"]

CREDENTIAL: Final = "fld_test"
TASK: Final = "sentiment"
BASE_SHA256: Final = hashlib.sha256(b"base").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one call fails.

    `after_effect` loses only the answer; `after_bytes` breaks a download, or an upload once so much
    of it is durable. `first` is what happens meanwhile.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    refusal: Refusal | None = None
    after_effect: bool = False
    after_bytes: int = 0
    first: Callable[[], object] | None = None


def a_task_spec(
    layout: AdapterLayout,
    *,
    base_model_sha256: bytes = BASE_SHA256,
    plan: task_spec_pb2.TrainingPlan | None = None,
    max_unary_payload_bytes: int = 1 << 20,
    max_abs_value: float = 64.0,
    max_weight: int = 1,
    encoding: str = "plain",
) -> bytes:
    spec = task_spec_pb2.TaskSpec(
        task_name=TASK,
        layout=layout.to_message(),
        base_model=task_spec_pb2.BaseModel(name="tiny", sha256=base_model_sha256),
        training_plan=plan
        or task_spec_pb2.TrainingPlan(
            local_epochs=1, batch_size=4, learning_rate=0.1, momentum=0.9
        ),
        max_abs_value=max_abs_value,
        max_weight=max_weight,
        max_unary_payload_bytes=max_unary_payload_bytes,
        accepted_encodings=[wire.Encoding.parse(encoding).to_proto()],
    )
    return spec.SerializeToString(deterministic=True)


class Peer:
    """Serves `start` to whoever checks in; a context manager that owns its socket."""

    def __init__(
        self,
        layout: AdapterLayout,
        start: SparseVector,
        rule: UploadRule,
        *,
        task_spec: bytes | None = None,
        chunk_bytes: int = 64,
        server_credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._layout = layout
        self._rule = rule
        self._chunk_bytes = chunk_bytes
        self._closed: set[bytes] = set()
        self._lock = threading.Lock()
        self.task_spec = task_spec or a_task_spec(layout)
        self.download = wire.encode(start)
        self.purpose = pb.PURPOSE_TRAIN
        self.train_rule = TrainRule()
        self.rounds = 1
        self.round_number = 0
        self.announced_sha256 = hashlib.sha256(self.download).digest()
        self.announced_size_bytes = len(self.download)
        self.named_task_sha256: bytes | None = None
        self.window = (1.0, 2.0)
        # Older services do not.
        self.tells_open_uploads = True
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        # Before each message of a download.
        self.on_chunk: Callable[[], object] = lambda: None
        self.check_in_answers: deque[pb.CheckInResponse] = deque()
        self.calls: list[str] = []
        self.check_ins: list[pb.CheckInRequest] = []
        self.offsets: list[int] = []
        self.outcomes: list[pb.ReportOutcomeRequest] = []
        self.payloads: list[bytes] = []
        self.headers: dict[bytes, pb.UpdateHeader] = {}
        self.chunks: list[int] = []
        # What has arrived of streamed payloads, by digest; and where each stream began.
        self.durable: defaultdict[bytes, bytes] = defaultdict(bytes)
        self.starts: list[int] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        if server_credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", server_credentials)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def accepted(self) -> list[bytes]:
        """Assignments whose update counts, in order."""
        return list(self.headers)

    def close_round(self) -> None:
        """Take no update of the present round any more."""
        self._closed.add(self.assignment_id)
        self.round_number += 1

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop(grace=None).wait()

    # -- the rpcs

    def _check_in(
        self, request: pb.CheckInRequest, context: grpc.ServicerContext
    ) -> pb.CheckInResponse:
        self._begin("CheckIn", context)
        self.check_ins.append(request)
        if self.check_in_answers:
            return self.check_in_answers.popleft()
        if self.round_number >= self.rounds:
            return pb.CheckInResponse(finished=pb.Finished(final_version=self.rounds))
        sha256 = hashlib.sha256(self.task_spec).digest()
        return pb.CheckInResponse(
            assignment=pb.Assignment(
                assignment_id=self.assignment_id,
                round_number=self.round_number,
                task_sha256=self.named_task_sha256 or sha256,
                task_spec=b"" if request.known_task_sha256 == sha256 else self.task_spec,
                download=pb.Download(
                    adapter_version=self.round_number,
                    sha256=self.announced_sha256,
                    size_bytes=self.announced_size_bytes,
                ),
                upload_rule=self._rule.to_message(),
                train_rule=self.train_rule.to_message(),
                training_seed=7,
                purpose=self.purpose,
            )
        )

    @property
    def assignment_id(self) -> bytes:
        return self.round_number.to_bytes(16, "big")

    def _download_adapter(
        self, request: pb.DownloadAdapterRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadAdapterResponse]:
        fault = self._begin("DownloadAdapter", context, streams=True)
        self.offsets.append(request.offset)
        sent = 0
        for offset in range(request.offset, len(self.download), self._chunk_bytes):
            if fault and sent >= fault.after_bytes:
                self._fail(fault, context)
            data = self.download[offset : offset + self._chunk_bytes]
            sent += len(data)
            self.on_chunk()
            yield pb.DownloadAdapterResponse(offset=offset, data=data)

    def _submit_update(
        self, request: pb.SubmitUpdateRequest, context: grpc.ServicerContext
    ) -> pb.SubmitUpdateResponse:
        fault = self._begin("SubmitUpdate", context)
        receipt = self._accept(request.header, request.payload, context)
        self._lose_answer(fault, context)
        return pb.SubmitUpdateResponse(receipt=receipt, retry_window=self._window())

    def _stream_update(
        self, parts: Iterable[pb.StreamUpdateRequest], context: grpc.ServicerContext
    ) -> pb.StreamUpdateResponse:
        fault = self._begin("StreamUpdate", context, streams=True)
        if fault and not fault.after_bytes and not fault.after_effect:
            self._fail(fault, context)
        header, payload = pb.UpdateHeader(), None
        for part in parts:
            if part.WhichOneof("part") == "header":
                header = part.header
                if self.tells_open_uploads:
                    context.send_initial_metadata((UPLOAD_OPEN,))
                continue
            if payload is None:
                payload = self._begun(header, part.chunk.offset, context)
            if part.chunk.offset != len(payload):
                self._refuse(Reason.CHUNK_SEQUENCE, grpc.StatusCode.INVALID_ARGUMENT, context)
            payload += part.chunk.data
            self.chunks.append(len(part.chunk.data))
            self.durable[header.payload_sha256] = payload
            if fault and 0 < fault.after_bytes <= len(payload):
                self._fail(fault, context)
        if payload is None:
            payload = self._begun(header, header.payload_size_bytes, context)
        receipt = self._accept(header, payload, context)
        self._lose_answer(fault, context)
        return pb.StreamUpdateResponse(receipt=receipt, retry_window=self._window())

    def _begun(self, header: pb.UpdateHeader, start: int, context: grpc.ServicerContext) -> bytes:
        """What there is before the first chunk."""
        self.starts.append(start)
        durable = self.durable[header.payload_sha256]
        if start > len(durable):
            self._refuse(Reason.OFFSET_RANGE, grpc.StatusCode.OUT_OF_RANGE, context)
        return durable[:start]

    def _query_upload(
        self, request: pb.QueryUploadRequest, context: grpc.ServicerContext
    ) -> pb.QueryUploadResponse:
        self._begin("QueryUpload", context)
        if request.assignment_id in self._closed:
            self._refuse(Reason.ROUND_CLOSED, grpc.StatusCode.FAILED_PRECONDITION, context)
        return pb.QueryUploadResponse(received_bytes=len(self.durable[request.payload_sha256]))

    def _report_outcome(
        self, request: pb.ReportOutcomeRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomeResponse:
        self._begin("ReportOutcome", context)
        self.outcomes.append(request)
        if request.outcome == pb.OUTCOME_EVALUATED:
            self.round_number += 1
        return pb.ReportOutcomeResponse(retry_window=self._window())

    # -- what a service must check

    def _accept(
        self, header: pb.UpdateHeader, payload: bytes, context: grpc.ServicerContext
    ) -> pb.Receipt:
        with self._lock:
            self.payloads.append(payload)
            # Until nothing speaks against it.
            self.durable[header.payload_sha256] = b""
            if hashlib.sha256(payload).digest() != header.payload_sha256:
                self._refuse(Reason.DIGEST_MISMATCH, grpc.StatusCode.DATA_LOSS, context)
            if header.download_sha256 != self.announced_sha256:
                self._refuse(Reason.STALE_BASE, grpc.StatusCode.FAILED_PRECONDITION, context)
            if header.assignment_id in self._closed:
                self._refuse(Reason.ROUND_CLOSED, grpc.StatusCode.FAILED_PRECONDITION, context)
            before = self.headers.get(header.assignment_id)
            if before is None:
                self._check_payload(payload, context)
                self.headers[header.assignment_id] = header
                self.round_number += 1
            elif before.payload_sha256 != header.payload_sha256:
                self._refuse(Reason.UPDATE_CONFLICT, grpc.StatusCode.ALREADY_EXISTS, context)
            self.durable[header.payload_sha256] = payload
            return pb.Receipt(
                update_id=hashlib.sha256(header.assignment_id).digest()[:16],
                payload_sha256=header.payload_sha256,
                ledger_sequence=len(self.headers),
                duplicate=before is not None,
            )

    def _check_payload(self, payload: bytes, context: grpc.ServicerContext) -> None:
        limits = wire.DecodeLimits(
            dim=self._layout.dim, max_nnz=self._rule.max_count, max_abs_value=64.0
        )
        try:
            wire.decode(payload, limits)
        except Refusal as refusal:
            self._refuse(refusal.reason, grpc.StatusCode.INVALID_ARGUMENT, context)

    # -- faults

    def _begin(
        self, name: str, context: grpc.ServicerContext, *, streams: bool = False
    ) -> Fault | None:
        self.calls.append(name)
        if ("authorization", f"Bearer {CREDENTIAL}") not in context.invocation_metadata():
            self._refuse(Reason.CREDENTIAL_INVALID, grpc.StatusCode.UNAUTHENTICATED, context)
        fault = self.faults[name].popleft() if self.faults[name] else None
        if fault and not streams and not fault.after_effect:
            self._fail(fault, context)
        return fault

    def _lose_answer(self, fault: Fault | None, context: grpc.ServicerContext) -> None:
        if fault is not None:
            self._fail(fault, context)

    def _refuse(
        self, reason: Reason, code: grpc.StatusCode, context: grpc.ServicerContext
    ) -> NoReturn:
        self._fail(Fault(code=code, refusal=Refusal(reason, reason.value.lower())), context)

    def _fail(self, fault: Fault, context: grpc.ServicerContext) -> NoReturn:
        if fault.first is not None:
            fault.first()
        if fault.refusal is not None:
            status = encode_status(fault.code.value[0], fault.refusal)
            context.set_trailing_metadata(((STATUS_DETAILS, status),))
        context.abort(fault.code, "scripted")

    def _window(self) -> pb.RetryWindow:
        return a_window(*self.window)

    def _handlers(self) -> grpc.GenericRpcHandler:
        one, out, into = (
            grpc.unary_unary_rpc_method_handler,
            grpc.unary_stream_rpc_method_handler,
            grpc.stream_unary_rpc_method_handler,
        )
        kinds: dict[str, tuple[Callable[..., Any], Callable[..., object]]] = {
            "CheckIn": (one, self._check_in),
            "DownloadAdapter": (out, self._download_adapter),
            "SubmitUpdate": (one, self._submit_update),
            "StreamUpdate": (into, self._stream_update),
            "QueryUpload": (one, self._query_upload),
            "ReportOutcome": (one, self._report_outcome),
        }
        handlers = {
            name: kind(
                method,
                request_deserializer=getattr(pb, f"{name}Request").FromString,
                response_serializer=getattr(pb, f"{name}Response").SerializeToString,
            )
            for name, (kind, method) in kinds.items()
        }
        return grpc.method_handlers_generic_handler("flasc.v1.DeviceService", handlers)


def a_window(earliest: float, latest: float) -> pb.RetryWindow:
    window = pb.RetryWindow()
    window.delay_min.FromNanoseconds(int(earliest * 1e9))
    window.delay_max.FromNanoseconds(int(latest * 1e9))
    return window
