"""Hostile payloads are refused, or read, in memory that their bytes bound."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1.packed_update_pb2 import PackedUpdate
from flasc_core.wire import decode, encode
from tests.unit.core.builders import a_payload, a_segment, a_vector, limits_of

DIM = 30_000_000
NNZ = 65_536
# As long as a segment may be.
LONGEST = 12 * NNZ
# What one segment takes beside its payload while it is read: copies of it, and what it holds.
SEGMENT_KIB = 4 * 1024
# A segment's start, its length of DIM, its nonzeros, gaps and float32.
HEAD = b"\x08\x00\x10\x80\x87\xa7\x0e\x18\x80\x80\x04\x20\x02\x28\x01"
# Runs in a process of its own, since the parser's memory is not Python's.
_READING = """
import ctypes, re, sys
from pathlib import Path
from flasc_core.errors import Refusal
from flasc_core.wire import DecodeLimits, decode_segments
def held(line):
    return int(re.search(line + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
def read(path):
    payload = Path(path).read_bytes()
    # What reading the file took goes back first, and is not taken again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    said = "read"
    try:
        for part in decode_segments(payload, limits):
            pass
    except Refusal as refusal:
        said = refusal.reason.name
    return said, held("VmHWM") - before
limits = DecodeLimits(dim=30_000_000, max_nnz=1_900_000, max_abs_value=64.0)
# Whatever is loaded at the first use is.
read(sys.argv[1])
print(*read(sys.argv[2]))
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


GAP, VALUE = b"\x30\x00", b"\x3d\x00\x00\x80\x3f"
UNPACKED = HEAD + GAP * NNZ + VALUE * NNZ
SEGMENTS = {
    "arrays that are not packed": (UNPACKED, "read"),
    "numbers one by one beside many that are packed": (
        HEAD + GAP + a_field(b"\x32", LONGEST - 40),
        "LENGTH_MISMATCH",
    ),
    "an unknown field beside many gaps": (
        HEAD + b"\xa0\x06\x01" + a_field(b"\x32", LONGEST - 40),
        "LENGTH_MISMATCH",
    ),
    "empty arrays": (filled(HEAD, b"\x32\x00"), "FIELD_RANGE"),
    "empty arrays of values": (filled(HEAD, b"\x3a\x00"), "FIELD_RANGE"),
    "unknown numbers": (filled(HEAD, b"\x88\x01\x00"), "FIELD_RANGE"),
    "groups": (filled(HEAD, b"\x8b\x01\x8c\x01"), "MALFORMED_MESSAGE"),
}


@linux_only
@pytest.mark.parametrize(("segment", "said"), SEGMENTS.values(), ids=SEGMENTS)
def test_a_hostile_segment_takes_no_more_than_an_honest_one(
    tmp_path: Path, segment: bytes, said: str
) -> None:
    assert len(segment) <= LONGEST
    heard, kib = measured(tmp_path, an_update(segment))
    assert heard == said
    assert kib < SEGMENT_KIB


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
    heard, kib = measured(tmp_path, payload)
    assert heard == said
    assert kib < 2_048


def test_a_segment_longer_than_any_honest_one_is_refused() -> None:
    # A field that nobody knows, of 800,000 bytes.
    segment = a_segment() + b"\xa2\x06\x80\xea\x30" + bytes(800_000)
    with pytest.raises(Refusal, match="bytes") as refusal:
        decode(a_payload(segment), limits_of())
    assert refusal.value.reason is Reason.FIELD_RANGE


def measured(folder: Path, payload: bytes) -> tuple[str, int]:
    """Return what came of the payload, and how many KiB more than it were held at the most."""
    (folder / "first").write_bytes(HONEST)
    (folder / "payload").write_bytes(payload)
    command = [sys.executable, "-c", _READING, str(folder / "first"), str(folder / "payload")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    said, kib = told.stdout.split()
    return said, int(kib)
