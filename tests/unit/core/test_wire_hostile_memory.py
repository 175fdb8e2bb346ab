"""Hostile payloads are refused, or read, in memory that their bytes bound."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1.packed_update_pb2 import PackedSegment, PackedUpdate
from flasc_core.wire import decode, encode
from flasc_core.wire.inflate import REPEATS, deflate
from tests.unit.core.builders import a_payload, a_segment, a_vector, limits_of

DIM = 30_000_000
NNZ = 65_536
# As long as a segment may be.
LONGEST = 12 * NNZ
# Of whoever reads, beside three times the payload.
WORKER_KIB = 2 * 1024
# A segment's start, its length of DIM, its nonzeros, gaps and float32.
HEAD = b"\x08\x00\x10\x80\x87\xa7\x0e\x18\x80\x80\x04\x20\x02\x28\x01"
# Runs in a process of its own, since the parser's memory is not Python's.
_READING = """
import ctypes, re, sys
from collections import deque
from functools import partial
from pathlib import Path
from flasc_core.errors import Refusal
from flasc_core.fold import Accumulator
from flasc_core.wire import DecodeLimits, decode_segments
def held(line):
    return int(re.search(line + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
limits = DecodeLimits(dim=30_000_000, max_nnz=1_900_000, max_abs_value=64.0)
sums = Accumulator.zeros(limits.dim)
# As a service checks what is handed in, and as it adds up what was accepted.
WORK = {
    "check": lambda payload: deque(map(len, decode_segments(payload, limits)), maxlen=0),
    "sum": lambda payload: sums.add_parts(partial(decode_segments, payload, limits), 1, b"1"),
    "clip": lambda payload: sums.add_parts(partial(decode_segments, payload, limits), 1, b"1", 1.0),
}
def read(work, path):
    payload = Path(path).read_bytes()
    # What reading the file took goes back first, and is not taken again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    said = "read"
    try:
        WORK[work](payload)
    except Refusal as refusal:
        said = refusal.reason.name
    return said, held("VmHWM") - before
# Whatever is loaded at the first use is, and sums' memory is theirs.
sums.sums[:] = 0
read(sys.argv[1], sys.argv[2])
print(*read(sys.argv[1], sys.argv[3]))
"""

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="reads the peak of its memory in /proc"
)


def varint(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    return bytes([number & 127 | 128]) + varint(number >> 7)


def a_field(tag: bytes, size: int) -> bytes:
    return tag + varint(size) + bytes(size)


def filled(segment: bytes, piece: bytes) -> bytes:
    return segment + piece * ((LONGEST - len(segment)) // len(piece))


def an_update(*segments: bytes) -> bytes:
    checksum = zlib.crc32(b"".join(segments))
    return PackedUpdate(dim=DIM, segments=segments, crc32=checksum).SerializeToString()


GAP, LONG_GAP, VALUE = b"\x30\x00", b"\x30" + b"\x80" * 4 + b"\x00", b"\x3d\x00\x00\x80\x3f"
UNPACKED = HEAD + GAP * NNZ + VALUE * NNZ


def a_bomb(start: int) -> bytes:
    """As many zeros as a segment holds, with gaps of five bytes each, in less than a kilobyte."""
    return PackedSegment(
        start=start,
        length=NNZ,
        nnz=NNZ,
        index_encoding=2,
        value_encoding=3,
        index_compression=2,
        gap_high=deflate([LONG_GAP[1:] * NNZ], REPEATS),
        value_compression=2,
        value_data=deflate([bytes(NNZ)], REPEATS),
        block_size=NNZ,
        block_exponents=b"\x00",
    ).SerializeToString()


SEGMENTS = {
    "arrays that are not packed": (UNPACKED, "read"),
    "numbers one by one beside many that are packed": (
        HEAD + GAP + a_field(b"\x32", LONGEST - 40),
        "LENGTH_MISMATCH",
    ),
    "the longest run of gaps": (filled(HEAD, LONG_GAP), "FIELD_RANGE"),
    "the longest run of short gaps": (filled(HEAD, GAP), "FIELD_RANGE"),
    "as many gaps of five bytes as there may be": (
        HEAD + LONG_GAP * NNZ + a_field(b"\x3a", 4 * NNZ),
        "read",
    ),
    "the longest run of values": (filled(HEAD, VALUE), "FIELD_RANGE"),
    "an unknown field beside many gaps": (
        HEAD + b"\xa0\x06\x01" + a_field(b"\x32", LONGEST - 40),
        "LENGTH_MISMATCH",
    ),
    "empty arrays": (filled(HEAD, b"\x32\x00"), "FIELD_RANGE"),
    "empty arrays of values": (filled(HEAD, b"\x3a\x00"), "FIELD_RANGE"),
    "unknown numbers": (filled(HEAD, b"\x88\x01\x00"), "FIELD_RANGE"),
    "groups": (filled(HEAD, b"\x8b\x01\x8c\x01"), "MALFORMED_MESSAGE"),
}


BOMBS = [a_bomb(place * NNZ) for place in range(3)]
works = pytest.mark.parametrize("work", ["check", "sum", "clip"])


@linux_only
@works
@pytest.mark.parametrize(("segment", "said"), SEGMENTS.values(), ids=SEGMENTS)
def test_a_hostile_segment_takes_no_more_than_an_honest_one(
    tmp_path: Path, work: str, segment: bytes, said: str
) -> None:
    assert len(segment) <= LONGEST
    payload = an_update(segment)
    heard, kib = measured(tmp_path, payload, work)
    assert heard == said
    # The payload itself was there before.
    assert kib < 2 * len(payload) / 1024 + WORKER_KIB


@linux_only
@works
@pytest.mark.parametrize("segments", [1, 3])
def test_segments_that_unpack_to_all_that_they_may_are_let_go_one_after_another(
    tmp_path: Path, work: str, segments: int
) -> None:
    payload = an_update(*BOMBS[:segments])
    heard, kib = measured(tmp_path, payload, work)
    assert heard == "read"
    assert kib < 2 * len(payload) / 1024 + WORKER_KIB


HONEST = encode(a_vector(dim=DIM))
UPDATES = {
    "one large unknown field": (a_field(b"\xa2\x06", 16 << 20) + HONEST, "read"),
    "large unknown fields": (a_field(b"\xa2\x06", 300_000) * 60 + HONEST, "read"),
    "large numbers of its own": (b"\x08" + b"\x80" * 9 + b"\x01" + HONEST, "read"),
    "a group before its segments": (
        b"\xa3\x06\xa4\x06" + an_update(*[bytes(LONGEST)] * 20),
        "MALFORMED_MESSAGE",
    ),
    "empty segments": (b"\x08\x80\x87\xa7\x0e" + b"\x12\x00" * 4_000_000, "FIELD_RANGE"),
    "numbers": (b"\x08\x01" * 4_000_000, "FIELD_RANGE"),
}


@linux_only
@pytest.mark.parametrize(("payload", "said"), UPDATES.values(), ids=UPDATES)
def test_what_is_beside_the_segments_takes_no_memory(
    tmp_path: Path, payload: bytes, said: str
) -> None:
    heard, kib = measured(tmp_path, payload, "check")
    assert heard == said
    assert kib < 2_048


def test_a_segment_longer_than_any_honest_one_is_refused() -> None:
    # A field that nobody knows, of 800,000 bytes.
    segment = a_segment() + b"\xa2\x06\x80\xea\x30" + bytes(800_000)
    with pytest.raises(Refusal, match="bytes") as refusal:
        decode(a_payload(segment), limits_of())
    assert refusal.value.reason is Reason.FIELD_RANGE


def measured(folder: Path, payload: bytes, work: str) -> tuple[str, int]:
    """Return what came of the payload, and how many KiB more than it were held at the most."""
    (folder / "first").write_bytes(HONEST)
    (folder / "payload").write_bytes(payload)
    files = [str(folder / name) for name in ("first", "payload")]
    command = [sys.executable, "-c", _READING, work, *files]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    said, kib = told.stdout.split()
    return said, int(kib)
