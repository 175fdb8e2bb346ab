"""Bytes across an unreliable link: transfers that resume where they broke, and count as they go."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, TypeAlias

from client_sdk._errors import (
    CallUnknown,
    ConnectionFailed,
    ProtocolError,
    ServiceError,
    TransferDamaged,
)
from client_sdk._retry import Retrier
from client_sdk._rpc import DeviceService
from client_sdk._state import PartialDownload, PendingUpdate
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["CHUNK_BYTES", "Upload", "download"]

CHUNK_BYTES: Final = 512 * 1024
# A coordinate takes at most 5 bytes of position and 4 of value; the rest is for segment headers.
_MAX_BYTES_PER_COORDINATE: Final = 16
_MAX_OVERHEAD_BYTES: Final = 1024 * 1024

OnRetry: TypeAlias = Callable[[int, float, ServiceError], None]
_Answer: TypeAlias = pb.SubmitUpdateResponse | pb.StreamUpdateResponse


def download(
    service: DeviceService,
    retrier: Retrier,
    part: PartialDownload,
    assignment: pb.Assignment,
    *,
    dim: int,
    on_received: Callable[[int], None],
    on_retry: OnRetry,
) -> bytes:
    """Return the whole payload, its digest checked, resuming `part` wherever it ends.

    Attempts count afresh after one that brought anything. Raises TransferDamaged, which no further
    try mends, where a fresh download is damaged too.
    """
    wanted = assignment.download
    if not 0 < wanted.size_bytes <= dim * _MAX_BYTES_PER_COORDINATE + _MAX_OVERHEAD_BYTES:
        raise ProtocolError(f"a download of {wanted.size_bytes} bytes is no adapter of {dim}")
    for _ in range(2):
        retrier.run(
            lambda: _receive(service, part, assignment, on_received),
            on_retry,
            progress=lambda: part.size,
        )
        payload = part.read()
        if hashlib.sha256(payload).digest() == wanted.sha256:
            return payload
        part.discard()
    raise TransferDamaged("the download is not what the service announced")


def _receive(
    service: DeviceService,
    part: PartialDownload,
    assignment: pb.Assignment,
    on_received: Callable[[int], None],
) -> None:
    start, size = part.size, assignment.download.size_bytes
    if start >= size:
        # Its digest decides; one that is too long is no worse than one that is damaged.
        return
    request = pb.DownloadAdapterRequest(assignment_id=assignment.assignment_id, offset=start)
    position = start
    try:
        with closing(service.download_adapter(request, size_bytes=size - start)) as stream:
            for message in stream:
                if message.offset != position or position + len(message.data) > size:
                    raise ProtocolError("the download's parts do not follow one another")
                part.append(message.data)
                position += len(message.data)
    finally:
        on_received(position - start)
    if position < size:
        raise ConnectionFailed("the download ended early", retryable=True)


class Upload:
    """Hands one update in, in as many attempts as it takes; every one sends the same bytes.

    The first is one message where the update fits it; later ones are streams, which resume.
    Attempts count afresh after one that made something durable.
    """

    def __init__(
        self,
        service: DeviceService,
        pending: PendingUpdate,
        *,
        on_sent: Callable[[int], None],
        on_resumed: Callable[[int], None],
    ) -> None:
        self._service: Final = service
        self._request: Final = pending.request
        # The field itself makes a copy of the bytes whenever it is read.
        self._size: Final = pending.request.header.payload_size_bytes
        self._is_small: Final = self._size <= pending.max_unary_payload_bytes
        self._on_sent: Final = on_sent
        self._on_resumed: Final = on_resumed
        self._durable_bytes = 0

    def run(
        self, retrier: Retrier, on_retry: OnRetry, *, was_tried: bool
    ) -> tuple[pb.Receipt, pb.RetryWindow]:
        """Return the receipt and when to come back.

        Only where some attempt `was_tried` before, the service is asked what it has.
        """
        tried = was_tried

        def attempt() -> _Answer:
            nonlocal tried
            if not tried and self._is_small:
                tried = True
                self._on_sent(self._size)
                return self._service.submit_update(self._request)
            start = self._ask() if tried else 0
            tried = True
            return self._stream(start)

        response = retrier.run(attempt, on_retry, progress=lambda: self._durable_bytes)
        if response.receipt.payload_sha256 != self._request.header.payload_sha256:
            raise ProtocolError("the receipt is for another payload")
        return response.receipt, response.retry_window

    def _ask(self) -> int:
        """Return how many leading bytes the service has; none where it can not be asked."""
        header = self._request.header
        query = pb.QueryUploadRequest(
            assignment_id=header.assignment_id, payload_sha256=header.payload_sha256
        )
        try:
            durable = self._service.query_upload(query).received_bytes
        except CallUnknown:
            return 0
        if durable > self._size:
            raise ProtocolError("the service claims to have more of the update than there is")
        self._durable_bytes = durable
        if durable:
            self._on_resumed(durable)
        return durable

    def _stream(self, start: int) -> pb.StreamUpdateResponse:
        chunks = _Chunks(self._request, start, self._on_sent)
        try:
            return self._service.stream_update(
                self._request.header, chunks.all(), size_bytes=self._size - start
            )
        except ServiceError as error:
            if error.reason == Reason.OFFSET_RANGE:
                # Dropped since the service was asked; the next attempt asks again.
                raise TransferDamaged(str(error), reason=error.reason, retryable=True) from error
            raise
        finally:
            chunks.stop()


class _Chunks:
    """The chunks of one stream. gRPC takes them on a thread of its own, until `stop`."""

    def __init__(
        self, request: pb.SubmitUpdateRequest, start: int, on_sent: Callable[[int], None]
    ) -> None:
        self._request: Final = request
        self._start: Final = start
        self._on_sent: Final = on_sent
        self._lock: Final = threading.Lock()
        self._is_stopped = False

    def all(self) -> Iterator[pb.UpdateChunk]:
        payload = self._request.payload
        for offset in range(self._start, len(payload), CHUNK_BYTES):
            data = payload[offset : offset + CHUNK_BYTES]
            with self._lock:
                if self._is_stopped:
                    return
                self._on_sent(len(data))
            yield pb.UpdateChunk(offset=offset, data=data)

    def stop(self) -> None:
        """Count nothing from now on: the call is over, and its totals are somebody else's."""
        with self._lock:
            self._is_stopped = True
