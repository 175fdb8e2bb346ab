"""The device service as typed calls over one channel, without generated gRPC stubs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from client_sdk._errors import translate
from flasc_core.metadata import UPLOAD_OPEN
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["CALL_LIMITS", "CLIENT_VERSION", "CallLimits", "DeviceService", "open_channel"]

_DISTRIBUTION: Final = "flasc-service"


def _version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        # Run from a source tree that is not installed.
        return "source"


CLIENT_VERSION: Final = f"flasc-python/{_version()}"

_OPTIONS: Final = (
    ("grpc.primary_user_agent", CLIENT_VERSION),
    # Retries are the participant's: it knows what is safe to repeat and keeps the bytes.
    ("grpc.enable_retries", 0),
    # A mobile link may be away for seconds without being dead, and radios cost battery: ask rarely,
    # wait long, and never ask while nothing is under way.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_reconnect_backoff_ms", 30_000),
)

# The slowest link worth using.
_SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """How long one attempt of a call may take.

    `call_seconds` are a small call's; transfers get more by their size. After `opening_seconds` an
    upload begins without the service's word on its header. `leaving_seconds` are those of the last
    call of a device that is told to stop, which systems kill when they lose patience.
    Every `look_seconds` a call that takes long looks whether it should go on.
    """

    call_seconds: float = 30.0
    opening_seconds: float = 10.0
    leaving_seconds: float = 5.0
    look_seconds: float = 0.5

    def transfer_seconds(self, size_bytes: int) -> float:
        return self.call_seconds + size_bytes / _SLOWEST_BYTES_PER_SECOND


CALL_LIMITS: Final = CallLimits()


def open_channel(
    address: str, *, tls_root_certificates: bytes | None, insecure: bool
) -> grpc.Channel:
    """Return a lazy channel; ValueError where certificates come with `insecure`."""
    if not insecure:
        credentials = grpc.ssl_channel_credentials(root_certificates=tls_root_certificates)
        return grpc.secure_channel(address, credentials, options=_OPTIONS)
    if tls_root_certificates is not None:
        raise ValueError("tls_root_certificates have no use with insecure=True; leave one out")
    return grpc.insecure_channel(address, options=_OPTIONS)


class DeviceService:
    """One method per rpc. Each has a deadline and raises ServiceError, never grpc.RpcError.

    What `check_stopped` raises ends a call that is under way. ValueError for a credential that no
    request can carry.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        credential: str,
        *,
        limits: CallLimits,
        check_stopped: Callable[[], None],
    ) -> None:
        if not credential or not credential.isascii() or not credential.isprintable():
            raise ValueError(
                "the credential is empty or has characters that none has; "
                "look for a line break at its end"
            )
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {credential}"),)
        self._limits = limits
        self._check_stopped = check_stopped

    def check_in(self, request: pb.CheckInRequest) -> pb.CheckInResponse:
        return self._unary("CheckIn", request, pb.CheckInResponse)

    def report_outcome(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        return self._unary("ReportOutcome", request, pb.ReportOutcomeResponse)

    def leave(self, request: pb.ReportOutcomeRequest) -> None:
        """Report as the last thing, soon; to be stopped is what this is for."""
        seconds = self._limits.leaving_seconds
        with _translated():
            self._begin("ReportOutcome", request, pb.ReportOutcomeResponse, seconds).result()

    def submit_update(self, request: pb.SubmitUpdateRequest) -> pb.SubmitUpdateResponse:
        return self._unary(
            "SubmitUpdate",
            request,
            pb.SubmitUpdateResponse,
            size_bytes=request.header.payload_size_bytes,
        )

    def stream_update(
        self, header: pb.UpdateHeader, chunks: Iterable[pb.UpdateChunk], *, size_bytes: int
    ) -> pb.StreamUpdateResponse:
        """Send the chunks once the service has taken the header; a refusal of it costs none.

        A service that says nothing for `opening_seconds` gets them all the same: it is older than
        that word, or something on the way holds it back.
        """
        call = self._channel.stream_unary(
            _path("StreamUpdate"),
            request_serializer=pb.StreamUpdateRequest.SerializeToString,
            response_deserializer=pb.StreamUpdateResponse.FromString,
        )
        begun: Future[grpc.Call] = Future()

        def messages() -> Iterator[pb.StreamUpdateRequest]:
            yield pb.StreamUpdateRequest(header=header)
            # Comes with the service's word, or at the end of the call.
            metadata = _in_thread(begun.result().initial_metadata)
            with suppress(TimeoutError):
                if UPLOAD_OPEN not in metadata.result(timeout=self._limits.opening_seconds):
                    return
            for chunk in chunks:
                yield pb.StreamUpdateRequest(chunk=chunk)

        seconds = self._limits.transfer_seconds(size_bytes)
        with _translated():
            under_way = call.future(messages(), timeout=seconds, metadata=self._metadata)
            begun.set_result(under_way)
            return self._answer(under_way)

    def query_upload(self, request: pb.QueryUploadRequest) -> pb.QueryUploadResponse:
        return self._unary("QueryUpload", request, pb.QueryUploadResponse)

    def download_adapter(
        self, request: pb.DownloadAdapterRequest, *, size_bytes: int
    ) -> Generator[pb.DownloadAdapterResponse, None, None]:
        """Yield the parts as they arrive; closing the iterator ends the call."""
        call = self._channel.unary_stream(
            _path("DownloadAdapter"),
            request_serializer=pb.DownloadAdapterRequest.SerializeToString,
            response_deserializer=pb.DownloadAdapterResponse.FromString,
        )
        seconds = self._limits.transfer_seconds(size_bytes)
        with _translated():
            responses = call(request, timeout=seconds, metadata=self._metadata)
            try:
                while (
                    response := self._answer(_in_thread(lambda: next(responses, None)))
                ) is not None:
                    yield response
                    # Only now: what has arrived is kept and counted.
                    self._check_stopped()
            finally:
                responses.cancel()

    def _unary(
        self, name: str, request: _Request, response: type[_Response], *, size_bytes: int = 0
    ) -> _Response:
        seconds = self._limits.transfer_seconds(size_bytes)
        with _translated():
            return self._answer(self._begin(name, request, response, seconds))

    def _begin(
        self, name: str, request: _Request, response: type[_Response], seconds: float
    ) -> grpc.Future[_Response]:
        serialize: Callable[[_Request], bytes] = type(request).SerializeToString
        call = self._channel.unary_unary(
            _path(name), request_serializer=serialize, response_deserializer=response.FromString
        )
        return call.future(request, timeout=seconds, metadata=self._metadata)

    def _answer(self, under_way: grpc.Future[_Answer] | Future[_Answer]) -> _Answer:
        try:
            while True:
                try:
                    return under_way.result(timeout=self._limits.look_seconds)
                except (grpc.FutureTimeoutError, TimeoutError):
                    self._check_stopped()
        finally:
            under_way.cancel()


def _in_thread(work: Callable[[], _Answer]) -> Future[_Answer]:
    """Wait for what has no timeout of its own: a call's next message, or its metadata."""
    future: Future[_Answer] = Future()
    # From here on nobody can cancel it but by the call.
    future.set_running_or_notify_cancel()

    def wait() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - told where the future is asked
            future.set_exception(error)

    threading.Thread(target=wait, name="flasc-call", daemon=True).start()
    return future


def _path(name: str) -> str:
    service = pb.DESCRIPTOR.services_by_name["DeviceService"]
    return f"/{service.full_name}/{service.methods_by_name[name].name}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error) from error
