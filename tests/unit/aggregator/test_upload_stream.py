"""A stream is cut into pieces on arrival; what it holds and what it owes is right at every end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.app.authenticate_device import AuthenticateDevice
from aggregator_service.app.count_refusal import CountRefusal
from aggregator_service.app.receive_upload import Upload
from aggregator_service.app.upload_rules import UpdateHeader
from aggregator_service.rpc.calls import Calls
from aggregator_service.rpc.upload_stream import UploadStream, UploadStreams
from aggregator_service.store.memory import MemoryStore
from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.builders import NOW, digest
from tests.support.patience import PATIENCE_SECONDS

PIECE = 8
PAYLOAD = bytes(range(50))
NOBODY = UUID(int=0)


class Kept:
    """Takes pieces, and notes how much all streams held as each came."""

    def __init__(self, streams: UploadStreams) -> None:
        self.streams = streams
        self.pieces: list[tuple[int, bytes]] = []
        self.charged = 0
        self.held: list[int] = []

    async def __call__(self, start: int, data: bytes, received_bytes: int) -> None:
        self.pieces.append((start, data))
        self.charged += received_bytes
        self.held.append(self.streams._held)

    @property
    def payload(self) -> bytes:
        return b"".join(data for _, data in self.pieces)


def some_streams(bytes_in_flight: int = 1 << 20) -> UploadStreams:
    return UploadStreams(
        bytes_in_flight=bytes_in_flight, chunk_idle_seconds=60, transfer_seconds=60
    )


def a_stream(durable_bytes: int = 0) -> UploadStream:
    header = UpdateHeader(
        assignment_id=NOBODY,
        payload_sha256=digest("payload"),
        payload_size_bytes=len(PAYLOAD),
        download_sha256=digest("download"),
        weight=1,
    )
    return UploadStream(
        upload=Upload(
            header=header, round_id=NOBODY, durable_bytes=durable_bytes, piece_bytes=PIECE
        )
    )


async def chunks(size: int, *, start: int = 0, end: int = len(PAYLOAD)) -> AsyncIterator[bytes]:
    for offset in range(start, end, size):
        chunk = pb.UpdateChunk(offset=offset, data=PAYLOAD[offset : min(offset + size, end)])
        yield pb.StreamUpdateRequest(chunk=chunk).SerializeToString()


@given(size=st.integers(1, 60), durable=st.integers(0, 6), data=st.data())
def test_pieces_follow_one_another_whatever_the_chunks_are(
    size: int, durable: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, durable * PIECE))
    streams, stream = some_streams(), a_stream(durable * PIECE)
    kept = Kept(streams)
    asyncio.run(stream.read(chunks(size, start=start), streams, kept))
    assert [at for at, _ in kept.pieces] == list(range(durable * PIECE, len(PAYLOAD), PIECE))
    assert kept.payload == PAYLOAD[durable * PIECE :]
    assert kept.charged + stream.uncharged_bytes == stream.received_bytes == len(PAYLOAD) - start
    # Less than a piece, and the chunk that came last.
    assert max(kept.held) < PIECE + size
    assert streams._held == 0


# Of chunks of 11 the third finds 6 bytes that wait for a piece to be whole.
MOST_HELD = 6 + 11


def test_a_stream_needs_room_for_no_more_than_it_holds() -> None:
    streams, stream = some_streams(bytes_in_flight=100), a_stream()
    kept = Kept(streams)
    with streams.room_for(100 - MOST_HELD):
        asyncio.run(stream.read(chunks(11), streams, kept))
    assert kept.payload == PAYLOAD
    assert streams._held == 0


def test_a_stream_is_refused_where_others_hold_too_much_and_keeps_its_pieces() -> None:
    streams, stream = some_streams(bytes_in_flight=100), a_stream()
    kept = Kept(streams)
    with streams.room_for(100 - MOST_HELD + 1):
        with pytest.raises(Refusal) as refused:
            asyncio.run(stream.read(chunks(11), streams, kept))
        assert streams._held == 100 - MOST_HELD + 1
    assert refused.value.reason is Reason.OVERLOADED
    assert streams._held == 0
    assert kept.payload == PAYLOAD[: 2 * PIECE]
    # The chunk that found no room has arrived all the same.
    assert kept.charged + stream.uncharged_bytes == stream.received_bytes == 33


def test_room_is_given_back_when_a_piece_can_not_be_kept() -> None:
    streams, stream = some_streams(), a_stream()

    async def fail(start: int, data: bytes, received_bytes: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(stream.read(chunks(20), streams, fail))
    assert streams._held == 0
    # What was handed on is not this stream's to charge any more.
    assert (stream.received_bytes, stream.uncharged_bytes) == (20, 0)


def test_an_early_end_leaves_the_beginning_and_owes_the_rest() -> None:
    streams, stream = some_streams(), a_stream()
    kept = Kept(streams)
    with pytest.raises(Refusal) as refused:
        asyncio.run(stream.read(chunks(7, end=28), streams, kept))
    assert refused.value.reason is Reason.CHUNK_SEQUENCE
    assert kept.payload == PAYLOAD[:24]
    assert (kept.charged, stream.uncharged_bytes) == (28, 0)
    assert streams._held == 0


def test_a_piece_that_was_handed_on_is_kept_and_charged_though_the_call_is_cancelled() -> None:
    go_on = threading.Event()
    done: list[tuple[int, int]] = []

    def keep(start: int, data: bytes, received_bytes: int) -> None:
        done.append((start, received_bytes))

    async def body(calls: Calls) -> UploadStream:
        handed_on = asyncio.Event()

        def hand_on(start: int, data: bytes, received_bytes: int) -> Awaitable[None]:
            handed_on.set()
            return calls.work_to_the_end(keep, start, data, received_bytes)

        # The one worker is busy, so that the piece has to wait.
        calls.workers.submit(go_on.wait, PATIENCE_SECONDS)
        streams, stream = some_streams(), a_stream()
        reading = asyncio.ensure_future(stream.read(chunks(PIECE), streams, hand_on))
        await handed_on.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        go_on.set()
        await calls.settle()
        return stream

    stream = with_calls(body)
    assert done == [(0, PIECE)]
    assert (stream.received_bytes, stream.uncharged_bytes) == (PIECE, 0)


def with_calls(body: Callable[[Calls], Awaitable[UploadStream]]) -> UploadStream:
    store = MemoryStore()
    with ThreadPoolExecutor(1) as workers:

        async def run() -> UploadStream:
            return await body(
                Calls(
                    authenticate=AuthenticateDevice(store=store, now=lambda: NOW),
                    count_refusal=CountRefusal(store=store),
                    workers=workers,
                )
            )

        return asyncio.run(run())
