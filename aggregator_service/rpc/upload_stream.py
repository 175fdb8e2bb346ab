"""Reading a streamed upload: a header, then chunks in order, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from aggregator_service.rpc.messages import parse
from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["UploadStreams"]


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
        part = await self._next(parts)
        if part is None or part.WhichOneof("part") != "header":
            raise Refusal(Reason.CHUNK_SEQUENCE, "a stream starts with the update's header")
        return part.header

    @asynccontextmanager
    async def payload(self, parts: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
        """The whole payload of exactly `size` bytes, given back to the budget afterwards."""
        held = bytearray()
        try:
            async with asyncio.timeout(self.transfer_seconds):
                while (part := await self._next(parts)) is not None:
                    self._append(held, part, size)
            if len(held) != size:
                raise Refusal(
                    Reason.CHUNK_SEQUENCE,
                    f"the stream ended after {len(held)} of {size} bytes; send it whole",
                )
            yield bytes(held)
        finally:
            self._held -= len(held)

    def _append(self, held: bytearray, part: pb.StreamUpdateRequest, size: int) -> None:
        if part.WhichOneof("part") != "chunk":
            raise Refusal(Reason.CHUNK_SEQUENCE, "after the header a stream has only chunks")
        chunk = part.chunk
        if not chunk.data or chunk.offset != len(held) or len(held) + len(chunk.data) > size:
            raise Refusal(
                Reason.CHUNK_SEQUENCE,
                f"expected a chunk at {len(held)} of {size} bytes, got {len(chunk.data)} bytes "
                f"at {chunk.offset}",
            )
        if self._held + len(chunk.data) > self.bytes_in_flight:
            raise Refusal(
                Reason.OVERLOADED,
                "too many uploads at once; try again later",
                retry_after=timedelta(seconds=5),
            )
        self._held += len(chunk.data)
        held += chunk.data

    async def _next(self, parts: AsyncIterator[bytes]) -> pb.StreamUpdateRequest | None:
        async with asyncio.timeout(self.chunk_idle_seconds):
            data = await anext(parts, None)
        return None if data is None else parse(pb.StreamUpdateRequest, data)
