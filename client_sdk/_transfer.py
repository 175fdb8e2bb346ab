"""Bytes across an unreliable link: downloads that resume, uploads that repeat the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

from client_sdk._errors import ConnectionFailed, ProtocolError, ServiceError, TransferDamaged
from client_sdk._retry import Retrier
from client_sdk._rpc import DeviceService
from client_sdk._state import PartialDownload, PendingUpdate
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["CHUNK_BYTES", "download", "upload"]

CHUNK_BYTES: Final = 512 * 1024
# A coordinate takes at most 5 bytes of position and 4 of value; the rest is for segment headers.
_MAX_BYTES_PER_COORDINATE: Final = 16
_MAX_OVERHEAD_BYTES: Final = 1024 * 1024

OnRetry = Callable[[int, float, ServiceError], None]


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

    A stream that brought anything before it broke does not count as a failed attempt. Raises
    TransferDamaged where a fresh download is damaged too.
    """
    wanted = assignment.download
    if not 0 < wanted.size_bytes <= dim * _MAX_BYTES_PER_COORDINATE + _MAX_OVERHEAD_BYTES:
        raise ProtocolError(f"a download of {wanted.size_bytes} bytes is no adapter of {dim}")
    for _ in range(2):
        while part.size < wanted.size_bytes:
            retrier.run(lambda: _receive(service, part, assignment, on_received), on_retry)
            if part.size < wanted.size_bytes:
                retrier.pause()
        payload = part.read()
        if hashlib.sha256(payload).digest() == wanted.sha256:
            return payload
        part.discard()
    raise TransferDamaged("the download is not what the service announced", retryable=True)


def _receive(
    service: DeviceService,
    part: PartialDownload,
    assignment: pb.Assignment,
    on_received: Callable[[int], None],
) -> None:
    start, size = part.size, assignment.download.size_bytes
    request = pb.DownloadAdapterRequest(assignment_id=assignment.assignment_id, offset=start)
    position = start
    try:
        with closing(service.download_adapter(request, size_bytes=size - start)) as stream:
            for message in stream:
                if message.offset != position or position + len(message.data) > size:
                    raise ProtocolError("the download's parts do not follow one another")
                part.append(message.data)
                position += len(message.data)
    except ServiceError as error:
        if not error.retryable or position == start:
            raise
    finally:
        on_received(position - start)
    if position == start:
        raise ConnectionFailed("the download ended early", retryable=True)


def upload(
    service: DeviceService, retrier: Retrier, pending: PendingUpdate, on_retry: OnRetry
) -> tuple[pb.Receipt, pb.RetryWindow]:
    """Return the receipt and when to come back; every attempt sends the same bytes."""
    request = pending.request
    size = len(request.payload)

    def attempt() -> pb.SubmitUpdateResponse | pb.StreamUpdateResponse:
        if size <= pending.max_unary_payload_bytes:
            return service.submit_update(request)
        return service.stream_update(_parts(request), size_bytes=size)

    response = retrier.run(attempt, on_retry)
    if response.receipt.payload_sha256 != request.header.payload_sha256:
        raise ProtocolError("the receipt is for another payload")
    return response.receipt, response.retry_window


def _parts(request: pb.SubmitUpdateRequest) -> Iterator[pb.StreamUpdateRequest]:
    yield pb.StreamUpdateRequest(header=request.header)
    for offset in range(0, len(request.payload), CHUNK_BYTES):
        data = request.payload[offset : offset + CHUNK_BYTES]
        yield pb.StreamUpdateRequest(chunk=pb.UpdateChunk(offset=offset, data=data))
