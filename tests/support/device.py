"""A synthetic device: every rpc by hand over a real channel, with nothing of the SDK between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import grpc
import numpy as np

from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.status import StatusDetails, decode_status
from flasc_core.wire import encode
from tests.support.patience import PATIENCE_SECONDS

SERVICE: Final = "/flasc.v1.DeviceService/"
METHODS: Final = (
    "CheckIn",
    "DownloadAdapter",
    "SubmitUpdate",
    "StreamUpdate",
    "QueryUpload",
    "ReportOutcome",
)
CHUNK: Final = 64 << 10


def details_of(error: grpc.RpcError) -> StatusDetails:
    # A failed call is both an error and a call; grpcio's types know only the error.
    trailer: Any = error.trailing_metadata()
    for key, value in trailer or ():
        if key == "grpc-status-details-bin":
            return decode_status(value)
    raise AssertionError(f"no error details came with {error.code()}: {error.details()}")


def reason_of(error: grpc.RpcError) -> Reason:
    return Reason(str(details_of(error).reason))


def encoded_vector(dim: int, values: dict[int, float]) -> bytes:
    indices = np.array(sorted(values), dtype=np.int64)
    found = np.array([values[index] for index in sorted(values)], dtype=np.float32)
    return encode(SparseVector(dim=dim, indices=indices, values=found))


@dataclass(frozen=True, slots=True)
class SyntheticDevice:
    channel: grpc.Channel
    credential: str
    timeout: float = PATIENCE_SECONDS
    # Waits for a service that is away, up to the timeout, instead of failing at once.
    wait_for_ready: bool = False

    def call_bytes(self, method: str, data: bytes) -> bytes:
        """A unary rpc with whatever bytes, for input that no honest client sends."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = self.channel.unary_unary(SERVICE + method)
        return call(data, **self._options)

    def stream_bytes(self, method: str, parts: Iterable[bytes]) -> bytes:
        call: grpc.StreamUnaryMultiCallable[bytes, bytes]
        call = self.channel.stream_unary(SERVICE + method)
        return call(iter(parts), **self._options)

    def receive_bytes(self, method: str, data: bytes) -> list[bytes]:
        call: grpc.UnaryStreamMultiCallable[bytes, bytes]
        call = self.channel.unary_stream(SERVICE + method)
        return list(call(data, **self._options))

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "metadata": self.metadata,
            "timeout": self.timeout,
            "wait_for_ready": self.wait_for_ready,
        }

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.credential}"),)

    def check_in(self, task: str, **fields: Any) -> pb.CheckInResponse:
        request = pb.CheckInRequest(task_name=task, **fields)
        return pb.CheckInResponse.FromString(
            self.call_bytes("CheckIn", request.SerializeToString())
        )

    def assignment(self, task: str) -> pb.Assignment:
        response = self.check_in(task)
        if response.WhichOneof("result") != "assignment":
            raise AssertionError(f"expected an assignment, got {response}")
        return response.assignment

    def download(self, assignment: pb.Assignment, offset: int = 0) -> bytes:
        request = pb.DownloadAdapterRequest(assignment_id=assignment.assignment_id, offset=offset)
        parts = self.receive_bytes("DownloadAdapter", request.SerializeToString())
        return b"".join(pb.DownloadAdapterResponse.FromString(part).data for part in parts)

    def submit(self, assignment: pb.Assignment, payload: bytes, **header: Any) -> pb.Receipt:
        request = pb.SubmitUpdateRequest(
            header=header_for(assignment, payload, **header), payload=payload
        )
        answer = self.call_bytes("SubmitUpdate", request.SerializeToString())
        return pb.SubmitUpdateResponse.FromString(answer).receipt

    def stream(self, assignment: pb.Assignment, payload: bytes, **header: Any) -> pb.Receipt:
        parts = stream_parts(header_for(assignment, payload, **header), payload)
        answer = self.stream_bytes("StreamUpdate", parts)
        return pb.StreamUpdateResponse.FromString(answer).receipt

    def query_upload(self, assignment: pb.Assignment, payload: bytes) -> int:
        """How much of the payload the service says is durable."""
        request = pb.QueryUploadRequest(
            assignment_id=assignment.assignment_id, payload_sha256=sha256(payload).digest()
        )
        answer = self.call_bytes("QueryUpload", request.SerializeToString())
        return pb.QueryUploadResponse.FromString(answer).received_bytes

    def resume(self, assignment: pb.Assignment, payload: bytes, start: int) -> pb.Receipt:
        parts = stream_parts(header_for(assignment, payload), payload, start=start)
        answer = self.stream_bytes("StreamUpdate", parts)
        return pb.StreamUpdateResponse.FromString(answer).receipt

    def report(self, assignment: pb.Assignment, outcome: pb.Outcome, **fields: Any) -> None:
        request = pb.ReportOutcomeRequest(
            assignment_id=assignment.assignment_id, outcome=outcome, **fields
        )
        self.call_bytes("ReportOutcome", request.SerializeToString())


def header_for(assignment: pb.Assignment, payload: bytes, **changes: Any) -> pb.UpdateHeader:
    header = pb.UpdateHeader(
        assignment_id=assignment.assignment_id,
        payload_sha256=sha256(payload).digest(),
        payload_size_bytes=len(payload),
        download_sha256=assignment.download.sha256,
        weight=1,
    )
    header.MergeFrom(pb.UpdateHeader(**changes))
    return header


def stream_parts(
    header: pb.UpdateHeader, payload: bytes, chunk: int = CHUNK, *, start: int = 0
) -> Iterator[bytes]:
    yield pb.StreamUpdateRequest(header=header).SerializeToString()
    for offset in range(start, len(payload), chunk):
        piece = pb.UpdateChunk(offset=offset, data=payload[offset : offset + chunk])
        yield pb.StreamUpdateRequest(chunk=piece).SerializeToString()
