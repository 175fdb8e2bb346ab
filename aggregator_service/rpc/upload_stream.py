"""Reading a streamed upload: a header, then chunks in order, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from aggregator_service.app.receive_upload import Upload
from aggregator_service.rpc.messages import parse
from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["Keep", "UploadStream", "UploadStreams"]

# Makes a piece durable: its start, its bytes, and how many have been received since the last one.
Keep: TypeAlias = Callable[[int, bytes, int], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class UploadStreams:
    """All streams together hold at most `bytes_in_flight`; bytes count as they arrive.

    Counting what was announced instead would let a few silent streams shut everybody out.
    """

    bytes_in_flight: int
    chunk_idle_seconds: float
    transfer_seconds: float
    _held: int = field(default=0, init=False)

    async def read_header(self, parts: AsyncIterator[bytes]) -> pb.UpdateHeader:
        part = await self.next_part(parts)
        if part is None or part.WhichOneof("part") != "header":
            raise Refusal(Reason.CHUNK_SEQUENCE, "a stream starts with the update's header")
        return part.header

    async def next_part(self, parts: AsyncIterator[bytes]) -> pb.StreamUpdateRequest | None:
        async with asyncio.timeout(self.chunk_idle_seconds):
            data = await anext(parts, None)
        return None if data is None else parse(pb.StreamUpdateRequest, data)

    @contextmanager
    def room_for(self, size_bytes: int) -> Iterator[None]:
        """Takes up a part of the budget for a whole payload that is read back."""
        self.take(size_bytes)
        try:
            yield
        finally:
            self.give_back(size_bytes)

    def take(self, size_bytes: int) -> None:
        if self._held + size_bytes > self.bytes_in_flight:
            raise Refusal(
                Reason.OVERLOADED,
                "too many uploads at once; try again later",
                retry_after=timedelta(seconds=5),
            )
        self._held += size_bytes

    def give_back(self, size_bytes: int) -> None:
        self._held -= size_bytes


@dataclass(slots=True, kw_only=True)
class UploadStream:
    """One upload on its way. Bytes are received once they have arrived, whatever they are worth."""

    upload: Upload
    received_bytes: int = field(default=0, init=False)
    # Received since the last piece was handed on.
    uncharged_bytes: int = field(default=0, init=False)
    # Where the next chunk has to start; the first one chooses.
    _position: int | None = field(default=None, init=False)
    # What is not durable yet, and where it begins.
    _rest: bytearray = field(default_factory=bytearray, init=False)
    _durable_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self._durable_bytes = self.upload.durable_bytes

    async def read(self, parts: AsyncIterator[bytes], streams: UploadStreams, keep: Keep) -> None:
        """Returns once all of the payload has been kept; holds a piece and a chunk at most."""
        try:
            async with asyncio.timeout(streams.transfer_seconds):
                while (part := await streams.next_part(parts)) is not None:
                    new = self._new_bytes(part)
                    streams.take(len(new))
                    self._rest += new
                    # What waits for the disk is held once.
                    del part, new
                    await self._keep_pieces(streams, keep)
        finally:
            streams.give_back(len(self._rest))
        self._check_end()

    def _new_bytes(self, part: pb.StreamUpdateRequest) -> bytes:
        """What a chunk brings that is not durable yet."""
        if part.WhichOneof("part") != "chunk":
            raise Refusal(Reason.CHUNK_SEQUENCE, "after the header a stream has only chunks")
        start, data = part.chunk.offset, part.chunk.data
        self.received_bytes += len(data)
        self.uncharged_bytes += len(data)
        if self._position is None:
            self._check_start(start)
            self._position = start
        size = self.upload.size_bytes
        if not data or start != self._position or start + len(data) > size:
            raise Refusal(
                Reason.CHUNK_SEQUENCE,
                f"expected a chunk at {self._position} of {size} bytes, got {len(data)} bytes "
                f"at {start}",
            )
        self._position += len(data)
        held = self._durable_bytes + len(self._rest)
        return data[max(held - start, 0) :]

    async def _keep_pieces(self, streams: UploadStreams, keep: Keep) -> None:
        size = self.upload.size_bytes
        while self._rest:
            length = min(self.upload.piece_bytes, size - self._durable_bytes)
            if len(self._rest) < length:
                return
            with memoryview(self._rest) as rest:
                piece, received = bytes(rest[:length]), self.uncharged_bytes
            # Before the wait, in which the call may be cancelled: what is handed on gets charged.
            self.uncharged_bytes = 0
            await keep(self._durable_bytes, piece, received)
            del self._rest[:length]
            self._durable_bytes += length
            streams.give_back(length)

    def _check_start(self, start: int) -> None:
        durable = self.upload.durable_bytes
        if start > durable:
            raise Refusal(
                Reason.OFFSET_RANGE,
                f"{durable} bytes are durable, so a stream can not start at {start}; "
                "QueryUpload tells where it can",
            )

    def _check_end(self) -> None:
        size = self.upload.size_bytes
        if self._position is None:
            # A header alone stands for a stream whose rest is empty.
            self._check_start(size)
        elif self._position < size:
            raise Refusal(
                Reason.CHUNK_SEQUENCE,
                f"the stream ended after {self._position} of {size} bytes; send the rest",
            )
